"""What a run will cost before it starts: shapes, operations, memory, engines, time."""

"""Many runs of one base: grids, their ledger, and where they are launched."""

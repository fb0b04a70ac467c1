"""What a data set holds, and rows that should not be trained on."""

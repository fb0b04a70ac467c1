"""Work on data files with models: mining, filtering, describing."""

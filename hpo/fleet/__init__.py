"""Keep workers running on slots until a study is done."""

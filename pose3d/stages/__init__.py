"""What does each stage read and write? One module a stage: files in, files out, skipped and resumed by its record."""

__all__: list[str] = []

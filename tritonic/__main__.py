"""`python -m tritonic` is the command `tritonic`."""

from tritonic.cli import app

app()

"""`python -m robustvae VERB`."""

from robustvae.cli import main

main()

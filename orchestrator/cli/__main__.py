"""``python -m orchestrator.cli``: the command line."""

from orchestrator.cli.main import main

main()

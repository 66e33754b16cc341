"""The workbench: list, show, verify, reproduce and bench the papers of formers."""

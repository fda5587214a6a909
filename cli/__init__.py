"""The command line: one module for each command, which wires rooms together and holds no logic."""

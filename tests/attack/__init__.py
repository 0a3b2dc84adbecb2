"""What one caller may cost others: attacks on a real gateway, each measured. README.md says how to add one."""

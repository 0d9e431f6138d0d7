"""One script a claim, each printing the project beside what a user would pick instead."""

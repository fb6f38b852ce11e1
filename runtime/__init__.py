"""What a saved artifact needs to run: plan, memory, sessions; NumPy and ml_dtypes only."""

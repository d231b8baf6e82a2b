"""Many runs: sweeps, comparison over seeds."""

"""Many runs: what is to be done (plan), one of them (experiment), all of them (execute)."""

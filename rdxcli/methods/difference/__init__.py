"""What two representations see differently: RDX and the baselines it is compared with."""

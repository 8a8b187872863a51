"""Networks, baselines and the Bundle. This module stays free of torch, so that serving can read a Bundle."""

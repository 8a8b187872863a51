"""What a real measure did: measured against a business-as-usual counterfactual learned before it."""

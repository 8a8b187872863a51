"""Networks in torch. A network takes numbers and tensors, and knows neither configuration nor Lightning."""

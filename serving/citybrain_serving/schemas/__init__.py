"""The shapes of answers, for the OpenAPI document. Answers are encoded by hand; tests hold the two together."""

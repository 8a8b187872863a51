"""The surrogate of a traffic simulation: what measures would change, in milliseconds and on any road network.

``routes`` says which streets share their traffic and which take it over, ``levers`` what a scenario's measures do on
each segment, ``nn.surrogate`` (in torch) learns the change, and ``scorer`` runs it without torch.
"""

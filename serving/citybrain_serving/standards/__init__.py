"""The formats that traffic and environment authorities already exchange: NGSI-LD, DATEX II and MQTT."""

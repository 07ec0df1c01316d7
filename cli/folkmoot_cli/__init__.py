"""`folkmoot` and `kubectl folkmoot`: sessions, verification, identity, and `folkmoot dev`."""

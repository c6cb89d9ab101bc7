"""The transport layer: EPR, qubit and message sockets between ports."""

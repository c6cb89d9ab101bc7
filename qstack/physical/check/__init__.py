"""The check of a driver: does it do what the device interface asks, and what its profile says?"""

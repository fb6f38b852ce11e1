"""Devices that run kernels of their own: what code they take, and sessions over their memory."""

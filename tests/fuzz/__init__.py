"""Untrusted bytes: what they may raise, how much they may keep, how long they may take."""

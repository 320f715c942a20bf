"""The demo's own small model, its pictures, and how both were made."""

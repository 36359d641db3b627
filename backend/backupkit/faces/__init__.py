"""What people and machines see: only faces print, ask or exit."""

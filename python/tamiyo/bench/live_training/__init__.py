"""The fault benchmark as a school: a policy goes on learning beside live runs."""

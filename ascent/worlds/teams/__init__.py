"""Worlds of several agents with one reward: small tables that can be solved, and PettingZoo environments to sample.

"ascent/Coordination-v0" and "ascent/Aloha-v0" are names for `parallel.Teams`; the environments need `pettingzoo`
(extra `agents`), the tables do not.
"""

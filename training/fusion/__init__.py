"""Late fusion: score files of several streams joined by key and averaged, and what that changed.

Joining, fusion rules, fitting weights and temperatures, and the comparison of the inputs with the fused scores. May
import `lgd.pipeline` and `lgd.training.scoring`, no other part of `lgd.training`.
"""

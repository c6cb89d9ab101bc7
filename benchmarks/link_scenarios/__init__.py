"""The scenarios of the SIGCOMM'19 link-layer study, on our link layer in virtual time.

    python -m benchmarks.link_scenarios

Dahlberg and others, "A link layer protocol for quantum networks" (SIGCOMM 2019, arXiv:1903.09778);
the numbers of the scenarios are those of the authors' simulation files
(SoftwareQuTech/QLinkLayerSimulations).

`patterns.py`: who asks for what, how often, and how the link is scheduled. `users.py`: who asks.
`simulation.py`: one run. `statistics.py`: means of runs. `findings.py`: what the study found, in
our numbers. `report.py`, `plot.py`: how it is shown. It is a benchmark and no command of `qstack`:
users stand in place of the network layers, which no deployed node has.
"""

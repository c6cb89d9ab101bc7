"""Links that share a switch: how they wait for each other, and whose light strays to whom.

Rules
1. A node predicts as if all links of the switch were at work: it knows of them, and not what
   they do. Alone a link is faster.
2. A pair that is kept holds the switch until it is there, so each costs a setting; what goes on
   keeps it for SWITCH_HOLD_NS at a time (`fabric/switchboard.py`).
3. Crosstalk: of the light of the nodes that wait, who attempt all the same, `crosstalk_db` less
   comes to the detectors. It is taken as if each of them sent in every window of the link that is
   on: an upper bound. Pair sources send to the link that is on alone.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from qstack.physical.hardware import LinkHardware, World
from qstack.physical.link_equipment import AbsorptiveEquipment
from qstack.physical.link_options import either
from qstack.physical.models.fibre import transmission
from qstack.physical.params import SWITCH_HOLD_NS
from qstack.physical.profile import Profile
from qstack.physical.retrieved_photon import RetrievedPhotonEquipment


def sharers(links: Mapping[str, LinkHardware], link: LinkHardware) -> list[LinkHardware]:
    """The links behind the switch of `link`, itself among them."""
    if link.switch is None:
        return [link]
    name = link.switch.name
    others = links.values()
    return [each for each in others if each.switch is not None and each.switch.name == name]


def kept_cycle_ns(world: World, link: LinkHardware, cycle_ns: float, probability: float) -> float:
    """The mean time an attempt to keep takes where links take turns, one pair each."""
    count = len(sharers(world.links, link))
    if link.switch is None or count == 1:
        return cycle_ns
    return count * (cycle_ns + link.switch.reconfiguration_ns * probability)


def measured_slowdown(world: World, link: LinkHardware) -> float:
    """How much longer attempts that go on take where links take turns by time."""
    count = len(sharers(world.links, link))
    if link.switch is None or count == 1:
        return 1.0
    return count * (1.0 + link.switch.reconfiguration_ns / SWITCH_HOLD_NS)


def with_crosstalk(
    links: Mapping[str, LinkHardware], profiles: Mapping[str, Profile]
) -> dict[str, LinkHardware]:
    """The same links, each with the stray light of those it shares a switch with.

    `profiles` are those of the nodes.
    """
    lit = dict(links)
    for name, link in links.items():
        if link.switch is None or link.switch.crosstalk_db is None or link.source is not None:
            continue
        passed = transmission(link.switch.crosstalk_db)
        stray = 0.0
        others = [other for other in sharers(links, link) if other is not link]
        for other in others:
            for end in other.ends:
                # The beam splitter gives each detector half of it.
                stray = either(stray, passed * _sent(other, end, profiles[end]) / 2.0)
        lit[name] = replace(link, stray_probability=stray)
    return lit


def _sent(link: LinkHardware, end: str, profile: Profile) -> float:
    """The probability of a click in the station by what an end sends in a window."""
    arm, equipment = link.arm_transmission(end), link.equipment
    if isinstance(equipment, AbsorptiveEquipment):
        return min(1.0, 2.0 * equipment.pair_parameter * equipment.idler_efficiency * arm)
    if isinstance(equipment, RetrievedPhotonEquipment):
        return equipment.pair_efficiency * equipment.path_efficiency * arm
    if equipment is not None:
        return 0.0  # a source in the middle, which sends to the link that is on
    bright = profile.bright_state_default if link.scheme == "single-click" else 1.0
    return bright * link.efficiency(end, profile)

"""Every analytic oracle of hardware and links, through the public functions of the library.

A case of these groups without a function fails: `test_no_case_is_left_out`.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstack.physical.models import (
    clock,
    coexistence,
    cycles,
    detector,
    emitter,
    fibre,
    free_space,
    midpoint_source,
    pair_source,
    rates,
    storage,
    swaps,
)
from qstack.physical.models.heralding import Heralded, coherence_factor, double_click, single_click
from qstack.quantum import bell, channels, distillation, figures, pauli, state

GROUPS = (
    "heralding_single_click",
    "heralding_double_click",
    "heralding_midpoint_source",
    "fibre",
    "satellite",
    "detector",
    "source_spdc",
    "timing",
    "memory",
    "distillation",
    "bounds",
    "waiting",
    "dlcz",
)
ORACLES = json.loads((Path(__file__).parents[2] / "data" / "oracles.json").read_text("utf-8"))
CASES = {case["id"]: case for case in ORACLES["cases"] if case["group"] in GROUPS}

Inputs = dict[str, Any]
Values = dict[str, Any]


def both_patterns(heralded: Heralded) -> float:
    plus = bell.fidelity(heralded.state, 1, 0)
    assert bell.fidelity(heralded.state_minus, 1, 1) == pytest.approx(plus, abs=1e-12)
    return plus


# --- heralding -----------------------------------------------------------------------------------


def of_single_click(given: Inputs) -> Values:
    heralded = single_click(
        alpha_a=given["alphaA"],
        alpha_b=given["alphaB"],
        eta_a=given["etaA"],
        eta_b=given["etaB"],
        dark_probability=given["p_dark_per_detector_window"],
        visibility=given["visibility"],
        phase_sigma_rad=given["sigma_phase"],
    )
    rho, minus = pauli.to_density(heralded.state), pauli.to_density(heralded.state_minus)
    assert np.diag(minus) == pytest.approx(np.diag(rho), abs=1e-15)
    assert minus[1, 2] == pytest.approx(-rho[1, 2], abs=1e-15)
    return {
        "P_success": heralded.probability,
        "F": both_patterns(heralded),
        "diag_00_01_10_11": np.diag(rho).real.tolist(),
        "coherence": rho[1, 2].real,
    }


def of_single_click_limit(given: Inputs) -> Values:
    alpha, eta = given["alpha"], given["eta"]
    heralded = single_click(alpha_a=alpha, alpha_b=alpha, eta_a=eta, eta_b=eta)
    return {"P": heralded.probability, "F": both_patterns(heralded)}


def of_phase_noise(given: Inputs) -> Values:
    sigma = given["sigma_rad"]
    return {
        "gaussian": coherence_factor(sigma),
        "von_mises": coherence_factor(sigma, "von-mises"),
    }


def of_double_click(given: Inputs) -> Values:
    heralded = double_click(
        eta_a=given["etaA"],
        eta_b=given["etaB"],
        dark_probability=given["p_dark_per_detector_window"],
        visibility=given["visibility"],
        number_resolving=given["number_resolving"],
    )
    weights = np.diag(pauli.to_density(heralded.state)).real
    return {
        "P_success": heralded.probability,
        "F": both_patterns(heralded),
        "weight_opposite_spins": weights[1] + weights[2],
        "weight_equal_spins": weights[0] + weights[3],
    }


def of_double_click_ideal(given: Inputs) -> Values:
    heralded = double_click(eta_a=given["etaA"], eta_b=given["etaB"], visibility=given["V"])
    return {"P": heralded.probability, "F": both_patterns(heralded)}


def of_linear_optics(given: Inputs) -> Values:
    efficiency = swaps.memory_photon_efficiency(given["eta_r"], 1.0, given["eta_d"])
    effects = swaps.retrieved_photon_measurement(efficiency, efficiency)
    phi = bell.bell_state(0, 0)
    return {"P": swaps.retrieved_photon_swap(phi, phi, effects).probability}


def of_midpoint_source(given: Inputs) -> Values:
    source = midpoint_source.MidpointSource(
        pair_numbers=midpoint_source.single_pairs(given["p_pair"]),
        efficiencies=(given["etaA"], given["etaB"]),
        trials=given["N"],
    )
    return {"P_frame": midpoint_source.midpoint_source(source).probability}


# --- channels and detectors ----------------------------------------------------------------------


def of_fibre(given: Inputs) -> Values:
    length_m = given["L_km"] * 1e3
    loss_db = fibre.fibre_loss_db(length_m, given["a_db_km"])
    return {
        "eta": fibre.transmission(loss_db),
        "delay_s": fibre.fibre_delay_ns(length_m, given["n"]) * 1e-9,
    }


def of_raman(given: Inputs) -> Values:
    values = {}
    for short, direction in (("fwd", "forward"), ("bwd", "backward")):
        way: Any = direction
        light = coexistence.ClassicalLight(given["P_in_dBm"], way, given["rho_per_km_nm"])
        length_m, nm = given["L_km"] * 1e3, given["lambda_nm"]
        power_w = coexistence.raman_power_w(light, length_m, given["filter_nm"])
        values[f"P_{short}_W"] = power_w
        values[f"{short}_photons_s"] = coexistence.raman_photons_hz(
            (light,), length_m, given["filter_nm"], wavelength_nm=nm
        )
    return values


def of_noise(given: Inputs) -> Values:
    return {"qber": coexistence.qber_with_noise(given["S"], given["N"], given["e_d"])}


def of_slant(given: Inputs) -> Values:
    slant_m = free_space.slant_range_m(given["h_km"] * 1e3, given["el_deg"], given["R_km"] * 1e3)
    return {"d_km": slant_m / 1e3}


def of_diffraction(given: Inputs) -> Values:
    share = free_space.diffraction_transmission(
        given["L_km"] * 1e3,
        given["full_div_urad"] * 1e-6,
        given["D_m"],
        given["pointing_urad"] * 1e-6,
    )
    return {"loss_dB": free_space.loss_db(share)}


def of_micius(given: Inputs) -> Values:
    rate_hz = free_space.coincidence_rate_hz(given["source_pairs_s"], given["loss_dB"])
    return {"rate": rate_hz}


def of_dark(given: Inputs) -> Values:
    return {"p": detector.noise_probability(given["rate_hz"], given["window_s"])}


def of_dead_time(given: Inputs) -> Values:
    return {"R_out": detector.detected_rate_hz(given["R"], given["tau"])}


# --- sources and timing --------------------------------------------------------------------------


def of_bbm92(given: Inputs) -> Values:
    source = pair_source.PairSource(
        mean_pairs=given["lam"],
        efficiencies=(given["etaA"], given["etaB"]),
        backgrounds=(given["Y0A"], given["Y0B"]),
        misalignment=given["e_d"],
    )
    gain, rate = pair_source.gain(source), pair_source.error_rate(source)
    fraction = figures.bbm92_fraction(rate, correction_efficiency=1.16)
    return {"Q": gain, "QBER": rate, "rate_per_pulse_f1p16": gain / 2.0 * fraction}


def of_thermal(given: Inputs) -> Values:
    mu = given["mu"]
    numbers = {f"P{n}": emitter.thermal_pair_probability(mu, n) for n in range(3)}
    return {**numbers, "g2_low_eta": emitter.heralded_g2(mu)}


def of_interference(given: Inputs) -> Values:
    return {
        "V_exp": clock.delay_visibility(given["dt"], given["tau"], "exponential"),
        "V_freq": clock.detuning_visibility(given["dw"], given["tau"]),
        "V_gauss": clock.delay_visibility(given["dt"], given["s"], "gaussian"),
    }


def of_two_way(given: Inputs) -> Values:
    found = clock.two_way(*(given[f"t{n}"] for n in range(1, 5)))
    return {"offset": found.offset_s, "delay": found.delay_s}


def of_correlation(given: Inputs) -> Values:
    std_s = clock.correlation_deviation_s(given["jA"], given["jB"], given["tdc"], given["N"])
    return {"std": std_s}


def of_drift(given: Inputs) -> Values:
    return {"drift_s": fibre.thermal_drift_ns(given["L_km"] * 1e3, given["dT"]) * 1e-9}


# --- memories ------------------------------------------------------------------------------------


def of_damping(given: Inputs) -> Values:
    noise = storage.waiting("exponential", given["T1"], given["T2"], 0.0, given["t"]).transfer
    one = state.apply(bell.bell_state(0, 0), 1, noise)
    psi = state.apply(state.apply(bell.bell_state(1, 0), 0, noise), 1, noise)
    return {
        "phi_plus_one_side": bell.fidelity(one),
        "phi_plus_both": bell.fidelity(state.apply(one, 0, noise)),
        "psi_plus_both": bell.fidelity(psi, 1, 0),
    }


def of_dephasing(given: Inputs) -> Values:
    noise = storage.waiting("exponential", math.inf, given["T2"], 0.0, given["t"]).transfer
    one = state.apply(bell.bell_state(0, 0), 0, noise)
    return {
        "one": bell.fidelity(one),
        "both": bell.fidelity(state.apply(one, 1, noise)),
        "werner_one": bell.fidelity(state.apply(bell.werner(given["F0"]), 0, noise)),
    }


def of_depolarising(given: Inputs) -> Values:
    p = -math.expm1(-given["t"] / given["T"])
    pair = state.apply(bell.bell_state(0, 0), 0, channels.depolarising(p))
    return {"p": p, "F": bell.fidelity(pair)}


def of_retrieval(given: Inputs) -> Values:
    values = {}
    laws: tuple[storage.Law, ...] = ("exponential", "gaussian")
    for law in laws:
        memory = storage.PhotonMemory(
            write_efficiency=1.0,
            retrieval_efficiency=given["eta0"],
            retrieval_decay_s=given["tau"],
            retrieval_law=law,
        )
        values[law] = memory.efficiency(given["t"])
    return values


def of_comb(given: Inputs) -> Values:
    return {
        "forward": storage.comb_efficiency(given["d"], given["finesse"], "forward"),
        "backward": storage.comb_efficiency(given["d"], given["finesse"], "backward"),
    }


def of_spectator(given: Inputs) -> Values:
    return {"p_single": (1.0 - storage.spectator_coherence(1, given["N_1e"])) / 2.0}


# --- distillation, bounds, waiting ---------------------------------------------------------------


def of_bbpssw(given: Inputs) -> Values:
    kept = distillation.bbpssw(
        given["F"],
        gate_depolarising_2q=1.0 - given.get("p2", 1.0),
        readout_fidelity=given.get("eta", 1.0),
    )
    return {"P": kept.probability, "F_out": kept.fidelity}


def of_dejmps(given: Inputs) -> Values:
    assert given["order"] == ["phi+", "phi-", "psi+", "psi-"]
    kept = distillation.dejmps(given["p"], given["p"])
    return {"P": kept.probability, "out": kept.weights.tolist()}


def of_epl(given: Inputs) -> Values:
    kept = distillation.epl(given["F"], given["lam"])
    clean = distillation.epl(given["F"])
    return {"P": kept.probability, "F_out_lam1": clean.fidelity, "F_out": kept.fidelity}


def of_bound(given: Inputs) -> Values:
    eta = fibre.transmission(fibre.fibre_loss_db(given["L_km"] * 1e3, given["a_db_km"]))
    return {
        "plob": rates.repeaterless_bound(eta),
        "one_repeater": rates.repeaterless_bound(eta, 1),
        "three_repeaters": rates.repeaterless_bound(eta, 3),
    }


def of_maximum(given: Inputs) -> Values:
    return {
        "E_max": rates.attempts_to_all(given["n"], given["p"]),
        "rule_3_2": rates.attempts_by_rule(given["n"], given["p"]),
    }


def of_cutoff(given: Inputs) -> Values:
    found = rates.parallel_with_cutoff(given["p"], given["m"], given["T"])
    return {"E_attempts": found.attempts, "mean_decay": found.mean_decay}


def of_sequential(given: Inputs) -> Values:
    return {"E_attempts": rates.sequential_with_cutoff(given["p"], given["m"])}


def of_multiplexing(given: Inputs) -> Values:
    return {"p_M": cycles.multiplexed_probability(given["p"], given["M"])}


def chain(given: Inputs, memory: float, detector_efficiency: float) -> rates.DlczChain:
    return rates.DlczChain(given["L_km"] * 1e3, given["n"], memory, detector_efficiency)


def of_dlcz(given: Inputs) -> Values:
    assert (given["L_att_km"], given["c_km_s"]) == (22, 200_000.0)
    eta_m, eta_d = given["eta_m"], given["eta_d"]
    p = rates.dlcz_pair_probability(given["n"], given["F"], eta_m * eta_d)
    return {"T_s": rates.dlcz_time_s(chain(given, eta_m, eta_d), p), "p": p}


def of_dlcz_ratio(given: Inputs) -> Values:
    """How much slower memories of 0.6 are than those of 0.9."""

    def time_s(memory: float, eta_d: float, p: float | None) -> float:
        if p is None:
            p = rates.dlcz_pair_probability(given["n"], given["F"], memory * eta_d)
        return rates.dlcz_time_s(chain(given, memory, eta_d), p)

    def ratio(eta_d: float, p: float | None) -> float:
        return time_s(0.6, eta_d, p) / time_s(0.9, eta_d, p)

    return {
        "ratio_fixed_fidelity": ratio(given["eta_d"], None),
        "ratio_fixed_p": ratio(given["eta_d"], 0.001),
        "ratio_fixed_fidelity_eta_d_1": ratio(1.0, None),
    }


def of_double_pairs(given: Inputs) -> Values:
    return {"y": [rates.dlcz_double_pairs(n) for n in given["n"]]}


# The function of a case is that of the longest beginning of its id in this table.
EVALUATE: dict[str, Callable[[Inputs], Values]] = {
    "single_click_": of_single_click,
    "single_click_ideal_limit": of_single_click_limit,
    "phase_noise_": of_phase_noise,
    "double_click_": of_double_click,
    "double_click_ideal": of_double_click_ideal,
    "bsm_linear_optics": of_linear_optics,
    "midpoint_source_frame": of_midpoint_source,
    "fibre_": of_fibre,
    "fibre_thermal": of_drift,
    "raman_": of_raman,
    "qber_with_noise": of_noise,
    "slant_": of_slant,
    "diffraction_": of_diffraction,
    "micius2017_loss_": of_micius,
    "detector_dark": of_dark,
    "detector_deadtime": of_dead_time,
    "spdc_bbm92_": of_bbm92,
    "thermal_tmsv": of_thermal,
    "hom_timing": of_interference,
    "two_way_time_transfer": of_two_way,
    "correlation_clock": of_correlation,
    "t1t2_bell": of_damping,
    "dephasing_only": of_dephasing,
    "depolarising_memory": of_depolarising,
    "retrieval_efficiency": of_retrieval,
    "afc_": of_comb,
    "carbon_dephasing_per_attempt": of_spectator,
    "bbpssw_": of_bbpssw,
    "dejmps": of_dejmps,
    "epl": of_epl,
    "plob_": of_bound,
    "emax_": of_maximum,
    "cutoff_parallel_": of_cutoff,
    "cutoff_sequential": of_sequential,
    "multiplexing": of_multiplexing,
    "dlcz_600km_": of_dlcz,
    "dlcz_60_to_90_": of_dlcz_ratio,
    "dlcz_multipair_enumeration": of_double_pairs,
}


def function_of(name: str) -> Callable[[Inputs], Values]:
    """Raises ValueError if no function is there for the case."""
    beginnings = [key for key in EVALUATE if name.startswith(key)]
    if not beginnings:
        raise ValueError(f"no function for the oracle {name}")
    return EVALUATE[max(beginnings, key=len)]


def test_no_case_is_left_out() -> None:
    assert {case["group"] for case in CASES.values()} == set(GROUPS)
    used = {function_of(name) for name in CASES}
    assert used == set(EVALUATE.values())
    assert len(CASES) == 84
    with pytest.raises(ValueError, match="no function for the oracle unheard_of"):
        function_of("unheard_of")


@pytest.mark.parametrize("name", CASES)
def test_the_library_gives_the_value_of_the_oracle(name: str) -> None:
    case = CASES[name]
    computed = function_of(name)(case["inputs"])
    assert computed.keys() == case["expected"].keys()
    for key, expected in case["expected"].items():
        error = np.abs(np.subtract(computed[key], expected)).max()
        # Absolute below 1; the file has ten digits, so above it is relative.
        assert error <= case["tol"] * max(1.0, np.abs(expected).max()), f"{key}: {computed[key]}"
        # Small values would pass an absolute tolerance unseen; the file has ten digits.
        assert computed[key] == pytest.approx(expected, rel=1e-6, abs=1e-9 * np.max(expected))

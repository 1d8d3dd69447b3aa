"""From measurements to the command that starts a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from probe.concurrent import Trial
from probe.errors import NoRoomError
from simulation.capacity import GIB, Share

GROWTH = 1.03  # more clients at once are worth it from three percent more images per second on
GPU_FULL = 0.95  # of its memory; the rest is for what was not measured
GPU_STEPS = 1000  # parts of a GPU are given in thousandths


@dataclass(frozen=True)
class Hardware:
    """One machine.

    Attributes:
        cpus: That may be used.
        memory: Bytes that are available.
        gpus: How many, all alike.
        gpu_memory: Bytes of one.
    """

    cpus: int
    memory: int
    gpus: int = 0
    gpu_memory: int = 0

    def __str__(self) -> str:
        gpus = f" of {self.gpu_memory / GIB:.1f} GiB" if self.gpus else ""
        return f"{Share(self.cpus, self.gpus)}{gpus}, {self.memory / GIB:.1f} GiB of memory available"


@dataclass(frozen=True)
class Needs:
    """Bytes that a trial does not measure, because only a run takes them.

    Attributes:
        server: The server's peak.
        client: What a client holds of its messages, in addition to its training.
        server_gpu: The server's on the first GPU.
    """

    server: int
    client: int
    server_gpu: int = 0


def candidates(hardware: Hardware, sampled: int) -> list[int]:
    """Numbers of clients to try at once, of one GPU or of the machine: 1, 2, 4, ... up to the most that can help."""
    devices = max(1, hardware.gpus)
    most = max(1, min(hardware.cpus // devices, -(-sampled // devices)))
    return sorted({*(1 << power for power in range(most.bit_length())), most})


def share_of_each(at_once: int, hardware: Hardware, needs: Needs) -> Share:
    """CPUs and part of a GPU with which exactly `at_once` clients fit on each GPU, or on the machine."""
    cpus = max(1, hardware.cpus // (at_once * max(1, hardware.gpus)))
    if not hardware.gpus:
        return Share(cpus, 0)
    # The server's part of the first GPU is left free, unless one more client would then fit.
    free = GPU_STEPS - GPU_STEPS * needs.server_gpu // hardware.gpu_memory
    return Share(cpus, max(free // at_once, GPU_STEPS // (at_once + 1) + 1) / GPU_STEPS if at_once > 1 else 1)


def shortage(trial: Trial, hardware: Hardware, needs: Needs) -> str:
    """What is missing for `trial` in a whole run; empty if nothing is."""
    clients = trial.at_once * max(1, hardware.gpus)
    memory = clients * (trial.peak + needs.client) + needs.server
    who = f"{clients} at once" if clients > 1 else "one client"
    if memory > hardware.memory:
        return f"{who} and the server need {memory / GIB:.1f} GiB, and {hardware.memory / GIB:.1f} are available"
    gpu, most = trial.gpu + needs.server_gpu, GPU_FULL * hardware.gpu_memory
    if hardware.gpus and gpu > most:
        return f"{who} and the server need {gpu / GIB:.1f} GiB of a GPU, and it can give {most / GIB:.1f}"
    return ""


def choose(trials: Sequence[Trial], hardware: Hardware, needs: Needs) -> Trial:
    """The fewest clients at once that train about as many images per second as any number that fits.

    Args:
        trials: Not empty, fewest clients first.
        hardware: They ran on it.
        needs: Of a run, in addition.

    Raises:
        NoRoomError: Not even the first fits.
    """
    if problem := shortage(trials[0], hardware, needs):
        raise NoRoomError(f"{problem}; use a smaller 'batch-size' or 'image-size'")
    best = trials[0]
    for trial in trials[1:]:
        if not shortage(trial, hardware, needs) and trial.images_per_second > GROWTH * best.images_per_second:
            best = trial
    return best


def reason(best: Trial, trials: Sequence[Trial], hardware: Hardware, needs: Needs, sampled: int) -> str:
    """Why this number, in one sentence."""
    where = " on each GPU" if hardware.gpus > 1 else ""
    many = f"{best.at_once} clients at once{where}" if best.at_once > 1 else f"One client at a time{where}"
    if best.at_once > 1:
        times = best.images_per_second / trials[0].images_per_second
        text = f"{many} train {times:.2f} times as many images a second as one alone"
    elif len(trials) > 1:
        text = f"{many} is about as fast as several"
    else:
        text = many
    larger = [trial for trial in trials if trial.at_once > best.at_once]
    problems = [problem for trial in larger if (problem := shortage(trial, hardware, needs))]
    if problems:
        return f"{text}; {problems[0]}."
    if larger and best.at_once > 1:
        return f"{text}; more are no faster."
    if best.at_once * max(1, hardware.gpus) >= sampled:
        return f"{text}; no more than {sampled} train in a round."
    return f"{text}."


def federation(clients: int, share: Share) -> str:
    """The value of ``--federation-config``."""
    gpus = f" client-resources-num-gpus={share.gpus:g}" if share.gpus else ""
    return f"num-supernodes={clients} client-resources-num-cpus={share.cpus:g}{gpus}"

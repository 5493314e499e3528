"""What bench_lora.py and bench_generate.py share: options, running one of our programs, the two clocks, and what is printed of a pair."""
import os
import resource
import statistics
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def add_arguments(parser):
    parser.add_argument("build")
    parser.add_argument("model")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)


def processor_seconds(who=resource.RUSAGE_SELF):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def run_ours(args, program, arguments):
    """What a program of BUILD printed, and the processor time it took."""
    command = [os.path.join(args.build, program), *arguments]
    before = processor_seconds(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, CPU_THREADS=str(args.threads)))
    if result.returncode:
        sys.exit(f"{' '.join(command)}: {result.stderr}")
    return result.stdout, processor_seconds(resource.RUSAGE_CHILDREN) - before


class Pairs:
    """Our speed over theirs, pair by pair: by the clock, and by processor time."""

    def __init__(self, peer):
        self.peer, self.clock, self.processor = peer, [], []

    def add(self, ours, theirs):
        """Each side: tokens, seconds by the clock, seconds of the processor. Returns the pair as text."""
        rates = [(tokens / clock, tokens / processor) for tokens, clock, processor in (ours, theirs)]
        self.clock.append(rates[0][0] / rates[1][0])
        self.processor.append(rates[0][1] / rates[1][1])
        return (f"ours {rates[0][0]:.1f} tokens/s ({rates[0][1]:.1f} per processor second), {self.peer} {rates[1][0]:.1f} ({rates[1][1]:.1f}): "
                f"{self.clock[-1]:.2f} × by the clock, {self.processor[-1]:.2f} × by processor time")

    def median(self):
        return f"median {statistics.median(self.clock):.2f} × by the clock, {statistics.median(self.processor):.2f} × by processor time"

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs libFuzzer programs for some seconds each and counts them.

usage: fuzz.py [--json-summary FILE] --seconds N --work DIR --seeds DIR PROGRAM...

fuzz_NAME starts from SEEDS/NAME; what it learns stays in WORK/corpus/NAME, what breaks it in WORK/crashes/.
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys


def run_target(program, seconds, work, seeds):
    name = os.path.basename(program).removeprefix("fuzz_")
    learnt = os.path.join(work, "corpus", name)
    crashes = os.path.join(work, "crashes")
    for directory in (learnt, crashes):
        os.makedirs(directory, exist_ok=True)
    command = [program, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1",
               f"-artifact_prefix={crashes}/{name}-", learnt]
    if os.path.isdir(os.path.join(seeds, name)):
        command.append(os.path.join(seeds, name))
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds * 2 + 120)
        return name, done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        return name, 124, (e.stdout or b"").decode(errors="replace") + "\nno end in time\n"


def runs_of(output):
    for line in output.splitlines():
        if line.startswith("stat::number_of_executed_units:"):
            return line.split()[-1]
    return "?"


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--json-summary")
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seeds", required=True)
    parser.add_argument("programs", nargs="+")
    args = parser.parse_args()

    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(run_target, p, args.seconds, args.work, args.seeds) for p in args.programs]
        for job in concurrent.futures.as_completed(jobs):
            name, status, output = job.result()
            if status == 0:
                passed += 1
                print(f"ok fuzz {name} ({runs_of(output)} inputs)", flush=True)
            else:
                failed += 1
                print(output[-8000:])
                print(f"not ok fuzz {name}: exit status {status}", flush=True)
    if args.json_summary:
        os.makedirs(os.path.dirname(args.json_summary) or ".", exist_ok=True)
        with open(args.json_summary, "w") as f:
            json.dump({"passed": passed, "failed": failed, "skipped": 0}, f)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

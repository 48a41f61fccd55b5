#!/usr/bin/env python3
"""Runs the released daemon for hours while everything around it fails in turn, and counts what its subscriber missed.

    cargo build --release && cargo build --release --example subscriber
    sudo python3 tests/soak/soak.py --minutes 120 --out /tmp/soak

A film a moment, a fault a minute; the acquisition folder, the state directory (a small tmpfs of its own), Mosquitto and
the reference subscriber belong to the run. Needs root for the tmpfs, in a mount namespace of its own; Python's standard
library alone; mosquitto. Results lie in OUT: samples.csv (every ten seconds), faults.csv (one line a fault),
events.jsonl (what the subscriber released, in its order), summary.json, and the logs.

Exit code 0 only if nothing was lost, nothing came out of order, and no good film was refused.
"""

import argparse
import asyncio
import collections
import csv
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE, DEVICE = "clinic", "soak-1"
TOPICS = f"xr/v1/{SITE}/{DEVICE}"
SAMPLE_S = 10
STATE_MIB = 96


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Films:
    """Endless films that differ in a comment alone: the same pixels, other bytes, another identity."""

    def __init__(self, folder):
        paths = [ROOT / "models/ceph19-nfdp/golden.png"]
        if folder:
            paths = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
        if not paths:
            sys.exit(f"{folder}: no PNG or JPEG film")
        self.bases = [p.read_bytes() for p in paths]
        self.made = 0

    def next(self):
        base, note = self.bases[self.made % len(self.bases)], f"film {self.made}".encode()
        self.made += 1
        if base.startswith(b"\x89PNG"):
            body = b"tEXt" + b"Comment\0" + note
            chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
            return ".png", base[:33] + chunk + base[33:]  # after IHDR
        return ".jpg", base[:2] + b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + base[2:]


class Proxy:
    """Between daemon and broker: passes, swallows in both directions, or refuses."""

    def __init__(self, to):
        self.to, self.port, self.mode, self.connections = to, free_port(), "pass", 0
        self.loop = asyncio.new_event_loop()
        self.open = set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self.loop.run_forever()

    async def _serve(self, reader, writer):
        self.connections += 1
        if self.mode == "refuse":
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            return
        self.open.add(writer)

        async def pump(source, sink):
            try:
                while data := await source.read(65536):
                    if self.mode == "swallow":
                        continue
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.transport.abort()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        self.open.discard(writer)

    def cut(self):
        self.loop.call_soon_threadsafe(lambda: [w.transport.abort() for w in self.open])


class Soak:
    def __init__(self, options):
        self.o = options
        self.out = pathlib.Path(options.out)
        self.out.mkdir(parents=True, exist_ok=False)
        self.films_dir, self.state, self.broker_dir = (self.out / n for n in ("films", "state", "broker"))
        for folder in (self.films_dir, self.state, self.broker_dir):
            folder.mkdir()
        run(["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m,mode=700", "soak-state", str(self.state)])
        self.random = random.Random(options.seed)
        self.films = Films(options.films)
        self.good, self.bad = {}, set()  # digest -> when it was dropped
        self.written_before, self.lives, self.unexpected = 0, 0, []
        self.expected_end = False
        self.daemon = self.broker = self.subscriber = None
        self.stop = threading.Event()
        self.broker_port, self.health_port = free_port(), free_port()
        self.proxy = Proxy(self.broker_port)
        self.lock = threading.RLock()

    # -- what runs -------------------------------------------------------------------------------------------------

    def configure(self, extra=""):
        (self.out / "landmarkd.toml").write_text(
            f'[site]\nname = "{SITE}"\ndevice = "{DEVICE}"\n'
            f'[acquisition]\nfolder = "{self.films_dir}"\nsettle_ms = 200\nmax_settle_s = 10\nrescan_s = 5\n'
            f'after = "delete"\n'
            f'[state]\ndirectory = "{self.state}"\nwarn_free_mib = 8\nstop_free_mib = 4\nballast_mib = 2\narchive_mib = 32\n'
            f'[model]\ndirectory = "{ROOT}/models/ceph19-nfdp"\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {self.proxy.port}\nkeep_alive_s = 5\nack_timeout_s = 10\n'
            f'max_backoff_s = 5\ncommands = true\n'
            f'[health]\nlisten = "127.0.0.1:{self.health_port}"\n{extra}'
        )

    def start_broker(self):
        (self.broker_dir / "mosquitto.conf").write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest file {self.broker_dir}/log\n"
            f"persistence true\npersistence_location {self.broker_dir}/\nautosave_on_changes true\n"
            f"autosave_interval 1\nmax_queued_messages 100000\n"
        )
        self.broker = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", self.broker_dir / "mosquitto.conf"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        until(lambda: accepts(self.broker_port), 20, "mosquitto listens")

    def start_daemon(self):
        log = open(self.out / "landmarkd.log", "ab")
        self.daemon = subprocess.Popen(
            [self.o.daemon, "run", "--config", self.out / "landmarkd.toml"], stdout=log, stderr=log,
            env={"PATH": os.environ["PATH"]},
        )
        self.lives += 1

    def start_subscriber(self):
        log = open(self.out / "subscriber.log", "ab")
        self.subscriber = subprocess.Popen(
            [self.o.subscriber, "--port", str(self.broker_port), "--device", TOPICS, "--ping", "5",
             "--state", self.out / "subscriber.json"],
            stdout=open(self.out / "events.jsonl", "ab"), stderr=log,
        )

    def keep_daemon(self):
        """What a service manager does: starts it again two seconds after it ended."""
        while not self.stop.wait(0.2):
            if self.daemon.poll() is not None:
                with self.lock:
                    if not self.expected_end:
                        self.unexpected.append({"at_s": self.now(), "code": self.daemon.returncode})
                    self.expected_end = False
                self.stop.wait(2)
                self.start_daemon()

    def now(self):
        return round(time.monotonic() - self.began, 1)

    # -- films -----------------------------------------------------------------------------------------------------

    def drop(self, suffix, data, good=True):
        digest = hashlib.sha256(data).hexdigest()
        partial = self.out / f"partial{suffix}"
        partial.write_bytes(data)
        if good:
            self.good[digest] = self.now()
        else:
            self.bad.add(digest)
        while not self.stop.is_set():
            try:
                partial.rename(self.films_dir / f"{digest[:16]}{suffix}")
                return
            except FileNotFoundError:  # the folder is away: so would the unit wait
                time.sleep(0.5)

    def feed(self):
        while not self.stop.is_set():
            started = time.monotonic()
            self.drop(*self.films.next())
            self.stop.wait(max(0.0, self.interval - (time.monotonic() - started)))

    # -- faults ----------------------------------------------------------------------------------------------------

    def kill_daemon(self):
        with self.lock:
            self.expected_end = True
            self.daemon.kill()

    def kill_broker(self):
        self.broker.kill()
        self.broker.wait()
        time.sleep(3)
        self.start_broker()

    def broker_forgets(self):
        self.broker.kill()
        self.broker.wait()
        (self.broker_dir / "mosquitto.db").unlink(missing_ok=True)
        self.start_broker()

    def stop_broker(self):
        self.broker.send_signal(signal.SIGSTOP)
        time.sleep(20)
        self.broker.send_signal(signal.SIGCONT)

    def swallow(self):
        self.proxy.mode = "swallow"
        time.sleep(20)
        self.proxy.mode = "pass"

    def refuse(self):
        self.proxy.mode = "refuse"
        self.proxy.cut()
        time.sleep(20)
        self.proxy.mode = "pass"

    def fill_disk(self):
        filler = self.state / "filler"
        with open(filler, "wb", buffering=0) as f:
            end = time.monotonic() + 20
            while time.monotonic() < end:  # and whatever becomes free meanwhile
                try:
                    f.write(bytes(1 << 14))
                except OSError:
                    time.sleep(0.05)
        filler.unlink()

    def folder_away(self):
        aside = self.out / "films.away"
        self.films_dir.rename(aside)
        time.sleep(20)
        aside.rename(self.films_dir)

    def reload_good(self):
        self.configure("overlays = 5\n")
        self.daemon.send_signal(signal.SIGHUP)
        time.sleep(10)
        self.configure()
        self.daemon.send_signal(signal.SIGHUP)

    def reload_bad(self):
        self.configure("no_such_key = 1\n")
        self.daemon.send_signal(signal.SIGHUP)
        time.sleep(10)
        self.configure()
        self.daemon.send_signal(signal.SIGHUP)

    def bad_films(self):
        for i in range(20):
            suffix, film = self.films.next()
            kind = i % 4
            if kind == 0:
                data = film[: len(film) * self.random.randrange(10, 99) // 100]
            elif kind == 1:
                data = self.random.randbytes(20_000)
            elif kind == 2:
                data = bytearray(film)
                for _ in range(50):
                    data[self.random.randrange(33, len(data))] ^= 1 << self.random.randrange(8)
                data = bytes(data)
            else:
                data = b"DICM".rjust(132, b"\0") + self.random.randbytes(5_000)
            self.drop(suffix, data, good=False)

    def subscriber_away(self):
        self.subscriber.kill()
        self.subscriber.wait()
        time.sleep(30)
        self.start_subscriber()

    def none(self):
        pass

    FAULTS = ("kill_daemon", "kill_broker", "stop_broker", "swallow", "refuse", "fill_disk", "folder_away",
              "reload_good", "reload_bad", "bad_films", "subscriber_away", "broker_forgets", "none")

    # -- measuring -------------------------------------------------------------------------------------------------

    def sample(self, writer):
        pid = self.daemon.pid
        try:
            status = dict(l.split(":", 1) for l in open(f"/proc/{pid}/status") if ":" in l)
            io = dict(l.split(":", 1) for l in open(f"/proc/{pid}/io"))
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            if "VmRSS" not in status:
                return None  # it has ended and was not waited for yet
        except (FileNotFoundError, ProcessLookupError):
            return None
        written = int(io["write_bytes"])
        if getattr(self, "_pid", pid) != pid:
            self.written_before += self._written
        self._pid, self._written = pid, written
        row = {
            "t_s": self.now(), "pid": pid, "rss_kib": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]),
            "fds": descriptors, "outbox_bytes": size(self.state), "written_bytes": self.written_before + written,
            "dropped": len(self.good), "queue": metric(self.health_port, "landmarkd_outbox_length"),
        }
        writer.writerow(row)
        return row

    def watch(self):
        with open(self.out / "samples.csv", "w", newline="") as f:
            writer = csv.DictWriter(f, ["t_s", "pid", "rss_kib", "threads", "fds", "outbox_bytes", "written_bytes",
                                        "dropped", "queue"])
            writer.writeheader()
            while not self.stop.is_set():
                row = self.sample(writer)
                f.flush()
                if row:
                    self.rows.append(row)
                self.stop.wait(SAMPLE_S)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self):
        self.began, self.rows, faults = time.monotonic(), [], []
        self.configure()
        self.start_broker()
        self.start_subscriber()
        self.start_daemon()
        until(lambda: metric(self.health_port, "landmarkd_ready") == 1, 60, "the daemon is ready")
        self.interval = self.o.interval or self.sustained()
        print(f"a film every {self.interval:.2f} s; {self.o.minutes} minutes; seed {self.o.seed}", flush=True)
        threads = [threading.Thread(target=t, daemon=True) for t in (self.keep_daemon, self.feed, self.watch)]
        for thread in threads:
            thread.start()
        order = [f for f in self.FAULTS if f in self.o.faults.split(",")] if self.o.faults else list(self.FAULTS)
        minute = 0
        while self.now() < 60 * self.o.minutes:
            if minute % len(order) == 0:
                self.random.shuffle(order)
            name, began = order[minute % len(order)], self.now()
            print(f"{began:8.0f} s  {name}  ({len(self.good)} films so far)", flush=True)
            getattr(self, name)()
            faults.append({"fault": name, "from_s": began, "to_s": self.now()})
            minute += 1
            time.sleep(max(0.0, began + self.o.period - self.now()))
        self.interval = 1e9  # no further films
        return self.finish(faults)

    def sustained(self):
        """Seconds a film, with a third to spare: twenty of them, one after the other."""
        def done():
            return sum(metrics(self.health_port, "landmarkd_films_total"))
        began, start = time.monotonic(), done()
        for _ in range(20):
            self.drop(*self.films.next())
        until(lambda: done() >= start + 20, 120, "twenty films are done")
        return max(0.3, 1.5 * (time.monotonic() - began) / 20)

    def released(self):
        events = []
        for line in open(self.out / "events.jsonl"):
            try:
                events.append(json.loads(line))
            except ValueError:
                pass  # a line cut by a kill; the subscriber writes it again
        return events

    def finish(self, faults):
        def quiet():
            # Refused films stay in the folder.
            good = {digest[:16] for digest in self.good}
            left = any(path.stem in good for path in self.films_dir.iterdir())
            return metric(self.health_port, "landmarkd_outbox_length") == 0 and not left
        drained = until(quiet, 300, "everything is delivered", fatal=False)
        last = max((e["sequence"] for e in map(flat, self.released())), default=0)
        time.sleep(15)  # for a last replay
        self.stop.set()
        time.sleep(1)
        self.daemon.terminate()
        code = self.daemon.wait(60)
        self.subscriber.kill()
        self.broker.kill()
        summary = self.judge(faults, drained, code, last)
        (self.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        print(json.dumps(summary, indent=2))
        return 0 if summary["verdict"] == "pass" else 1

    def judge(self, faults, drained, code, last):
        events = list(map(flat, self.released()))
        by_film, sequences = collections.defaultdict(list), []
        for event in events:
            sequences.append(event["sequence"])
            by_film[event["film"]].append(event)
        numbers = set(sequences)
        lost = [d for d in self.good if not any(e["kind"] == "result" for e in by_film[d])]
        refused = [d for d in self.good if any(e["kind"] == "error" for e in by_film[d])]
        several = [d for d in self.good if len({e["id"] for e in by_film[d] if e["kind"] == "result"}) > 1]
        missing = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
        back = sum(b <= a for a, b in zip(sequences, sequences[1:]))
        repeated = len(sequences) - len(numbers)
        for fault in faults:
            at = [d for d, t in self.good.items() if fault["from_s"] <= t < fault["from_s"] + self.o.period]
            fault["films"], fault["lost"] = len(at), sum(d in lost for d in at)
        with open(self.out / "faults.csv", "w", newline="") as f:
            writer = csv.DictWriter(f, ["fault", "from_s", "to_s", "films", "lost"])
            writer.writeheader()
            writer.writerows(faults)
        half = len(self.rows) // 2
        mean = lambda rows, key: round(sum(r[key] for r in rows) / max(1, len(rows)), 1)
        ok = drained and code == 0 and not (lost or refused or several or missing or back or self.unexpected)
        counted = collections.Counter()
        for fault in faults:
            counted[fault["fault"]] += 1
        return {
            "verdict": "pass" if ok else "FAIL", "seconds": self.now(), "interval_s": round(min(self.interval, 1e8), 2),
            "films": len(self.good), "bad_films": len(self.bad), "events": len(events), "last_sequence": last,
            "lost": len(lost), "good_films_refused": len(refused), "films_with_several_ids": len(several),
            "missing_sequences": missing[:20], "out_of_order": back, "released_twice": repeated,
            "delivered_in_the_end": drained, "last_exit_code": code, "unexpected_ends": self.unexpected,
            "faults": dict(counted), "starts_of_the_daemon": self.lives, "broker_connections": self.proxy.connections,
            "rss_kib": {"first_half": mean(self.rows[:half], "rss_kib"), "second_half": mean(self.rows[half:], "rss_kib"),
                        "largest": max((r["rss_kib"] for r in self.rows), default=0)},
            "fds": {"first_half": mean(self.rows[:half], "fds"), "second_half": mean(self.rows[half:], "fds"),
                    "largest": max((r["fds"] for r in self.rows), default=0)},
            "outbox_bytes": {"first_half": mean(self.rows[:half], "outbox_bytes"),
                             "second_half": mean(self.rows[half:], "outbox_bytes")},
            "written_bytes_per_film": round(self.rows[-1]["written_bytes"] / max(1, len(self.good))) if self.rows else None,
        }


def flat(line):
    """What counts of a CloudEvent, as the reference subscriber released it."""
    data = line.get("data") or {}
    film = (data.get("image") or {}).get("sha256") or data.get("image_sha256")
    kind = "error" if "error" in line["type"] else "result"
    return {"sequence": int(line["sequence"]), "id": line["id"], "film": film, "kind": kind}


def run(command):
    subprocess.run(command, check=True)


def accepts(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def size(folder):
    return sum(p.stat().st_size for p in folder.glob("*.redb"))


def metrics(port, name):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=3).read().decode()
    except OSError:
        return []
    lines = (l for l in text.splitlines() if l.startswith(name) and l[len(name)] in " {")
    return [float(l.rsplit(" ", 1)[1]) for l in lines]


def metric(port, name):
    return next(iter(metrics(port, name)), None)


def until(condition, seconds, what, fatal=True):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    if fatal:
        sys.exit(f"not within {seconds} s: {what}")
    print(f"not within {seconds} s: {what}", file=sys.stderr)
    return False


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="a folder that does not exist yet")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--period", type=float, default=60, help="seconds from fault to fault")
    parser.add_argument("--interval", type=float, help="seconds from film to film; measured where not given")
    parser.add_argument("--faults", help="these alone, separated by commas: " + ", ".join(Soak.FAULTS))
    parser.add_argument("--films", help="a folder of PNG and JPEG films instead of the bundle's golden one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--daemon", default=str(target / "release/landmarkd"))
    parser.add_argument("--subscriber", default=str(target / "release/examples/subscriber"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        if os.geteuid() != 0 or not shutil.which("unshare"):
            sys.exit("root and unshare are needed, for a state directory that can be filled")
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, "--inside",
                              *sys.argv[1:]])
    soak = Soak(options)
    try:
        code = soak.run()
    finally:
        soak.stop.set()
        for process in (soak.daemon, soak.subscriber, soak.broker):
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
    sys.exit(code)


if __name__ == "__main__":
    main()

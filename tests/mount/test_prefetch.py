# SPDX-License-Identifier: Apache-2.0
"""Plans: models are fetched before anybody asks, within the memory there is, and never a byte is wrong."""
import json
import mmap
import os
import random
import struct
import subprocess
import time

import proc
from build import build_path
from harness import BUCKET, MIB, SEED, check, equal, options

SIZE = 96 * MIB


def model(t, shards=4, size=SIZE):
    """A generated model's directory."""
    directory = os.path.join(t.directory, 'model')
    subprocess.run([build_path('bin', 'penstock-load'), 'generate', directory, '--size', str(size), '--shards',
                    str(shards), '--seed', str(SEED)], check=True, stdout=subprocess.DEVNULL)
    return directory


def model_server(t, prefix='', **opts):
    directory = model(t, **opts)
    server = t.s3d()
    server.client().create_bucket(BUCKET)
    server.client(timeout=300).put_tree(BUCKET, prefix, directory)
    total = sum(e.stat().st_size for e in os.scandir(directory))
    return server, directory, total


def loaded(t, m, directory, below=''):
    argv = [build_path('bin', 'penstock-load'), 'model', m.file(below) if below else m.directory, '--json', '--verify',
            directory]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    check(done.returncode == 0, lambda: f'the load: {done.stdout}')
    return json.loads(done.stdout)


def settled(m, want, timeout=20):
    """Waits until as much was fetched."""
    proc.wait_for(lambda: m.stats()['fetched_bytes'] >= want, timeout, f'{want} bytes to be fetched', m.process)


@options(san=True)
def test_a_model_in_the_root_is_fetched_at_mount(t):
    server, directory, total = model_server(t)
    with t.mount(server, memory='512MiB') as m:
        settled(m, total * 0.95)
        equal(m.stats()['reads'], 0, 'reads')
        requests = server.stats()['requests']['get']
        loaded(t, m, directory)
        check(m.stats()['fetched_bytes'] <= total * 1.05, f'{m.stats()["fetched_bytes"]} bytes fetched of {total}')
        check(sum(server.stats()['requests']['get'].values()) <= sum(requests.values()) * 1.1 + 4,
              'the load asked for what was there')


@options(san=True)
def test_an_open_starts_the_plan_of_its_directory(t):
    server, directory, total = model_server(t, prefix='a/b/')
    server.client().put(BUCKET, 'other', b'x')
    with t.mount(server, memory='512MiB') as m:
        time.sleep(1)
        equal(m.stats()['fetched_bytes'], 0, 'bytes fetched before an open')
        with open(m.file('a/b/model.safetensors.index.json'), 'rb') as f:
            f.read()
        settled(m, 16 * MIB)
        check(m.stats()['fetched_bytes'] <= 40 * MIB, 'an open alone fetched more than a beginning')
        loaded(t, m, directory, 'a/b')
        check(m.stats()['fetched_bytes'] <= total * 1.05, f'{m.stats()["fetched_bytes"]} bytes fetched of {total}')


@options()
def test_switched_off_nothing_is_fetched_ahead(t):
    server, directory, total = model_server(t)
    with t.mount(server, prefetch='off') as m:
        with open(m.file('model.safetensors.index.json'), 'rb') as f:
            f.read()
        time.sleep(1)
        check(m.stats()['fetched_bytes'] < MIB, 'something was fetched')
        loaded(t, m, directory)


@options()
def test_eager_fetches_what_is_no_model(t):
    server = t.s3d(memory=True)
    for n in range(20):
        server.declare(BUCKET, f'd{n % 3}/part-{n}', size=MIB)
    with t.mount(server, prefetch='eager') as m:
        settled(m, 20 * MIB)
        equal(m.stats()['reads'], 0, 'reads')


@options(timeout=120, san=True)
def test_a_model_beyond_the_memory_evicts_nothing_unread(t):
    server, directory, total = model_server(t, size=256 * MIB)
    with t.mount(server, memory='64MiB') as m:
        time.sleep(1)
        check(m.stats()['fetched_bytes'] <= 33 * MIB, 'more than half of the memory was filled ahead')
        loaded(t, m, directory)
        s = m.stats()
        check(s['evicted_bytes'] <= total * 0.02, f'{s["evicted_bytes"]} bytes were evicted')
        check(s['fetched_bytes'] <= total * 1.05, f'{s["fetched_bytes"]} bytes fetched of {total}')


@options(san=True)
def test_hostile_models_are_read_right(t):
    """Headers that lie cost nothing but their plan."""
    tensor = {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 1 << 42]}
    headers = {'short': b'\x10\0\0\0\0\0\0\0{"a":', 'huge': struct.pack('<Q', 1 << 62),
               'beyond': struct.pack('<Q', 200) + json.dumps({'t': tensor}).encode().ljust(200),
               'deep': struct.pack('<Q', 100000) + b'[' * 100000, 'empty': b''}
    server = t.s3d(memory=True)
    for name, head in headers.items():
        server.declare(BUCKET, f'{name}/model.safetensors', body=head + os.urandom(300000))
    server.declare(BUCKET, 'index/model.safetensors.index.json',
                   body=json.dumps({'weight_map': {'a': '../../etc/passwd', 'b': 'x' * 5000}}).encode())
    server.declare(BUCKET, 'index/model.safetensors', body=b'y' * 100000)
    m = t.mount(server)
    for name in (*(f'{n}/model.safetensors' for n in headers), 'index/model.safetensors.index.json',
                 'index/model.safetensors'):
        want = server.client().get(BUCKET, name).body
        for _ in range(2):
            with open(m.file(name), 'rb') as f:
                check(f.read() == want, f'bytes of {name}')
    for name in headers:
        m.log_wait(f'key={name}/model.safetensors: read without a plan')
    equal(m.process.poll(), None, 'status of the daemon')


@options(timeout=90)
def test_a_reader_of_little_is_left_alone(t):
    """Somebody who looks into a large file at random does not get all of it."""
    server, directory, total = model_server(t, prefix='m/', shards=1, size=256 * MIB)
    name = next(e.name for e in os.scandir(directory) if e.name.endswith('.safetensors'))
    with t.mount(server) as m:
        rng, page = random.Random(6), mmap.mmap(-1, 4096)
        fd = os.open(m.file('m', name), os.O_RDONLY | os.O_DIRECT)
        with open(os.path.join(directory, name), 'rb') as reference:
            for _ in range(100):
                at = rng.randrange(255 * MIB // 4096) * 4096
                os.preadv(fd, [page], at)
                check(page[:] == os.pread(reference.fileno(), 4096, at), f'bytes at {at}')
        os.close(fd)
        fetched = m.stats()['fetched_bytes']
        check(fetched <= 32 * MIB + 100 * 16 * 128 * 1024, f'{fetched} bytes were fetched for 100 pages')


def slices(t, m, directory, first, count):
    """Reads some shards, every byte compared."""
    files = sorted(e.name for e in os.scandir(directory) if e.name.endswith('.safetensors'))[first:first + count]
    for name in files:
        with open(m.file(name), 'rb') as f, open(os.path.join(directory, name), 'rb') as reference:
            check(f.read() == reference.read(), f'bytes of {name}')
    return sum(os.path.getsize(os.path.join(directory, name)) for name in files)


def profile_of(directory):
    found = [os.path.join(directory, name) for name in os.listdir(directory)]
    equal(len(found), 1, 'profiles')
    return found[0]


@options(timeout=90, san=True)
def test_a_second_start_follows_the_recorded_profile(t):
    server, directory, total = model_server(t, shards=6)
    kept = os.path.join(t.directory, 'profiles')
    with t.mount(server, profile_dir=kept) as m:
        equal(m.get('prefetch/profile'), 'none', 'profile')
        wanted = slices(t, m, directory, 3, 2)
    with t.mount(server, profile_dir=kept) as m:
        settled(m, wanted * 0.95)
        time.sleep(0.5)
        fetched = m.stats()['fetched_bytes']
        check(fetched <= wanted * 1.1 + MIB, f'{fetched} bytes were fetched, {wanted} had been read')
        m.log_wait('ready')
        check(m.get('prefetch/profile').startswith('version 1'), f'profile: {m.get("prefetch/profile")}')
        slices(t, m, directory, 3, 2)
        # What the profile does not know is read all the same.
        slices(t, m, directory, 0, 6)


@options(timeout=90, san=True)
def test_profiles_that_are_wrong_are_left_alone(t):
    server, directory, total = model_server(t)
    kept = os.path.join(t.directory, 'profiles')
    with t.mount(server, profile_dir=kept) as m:
        loaded(t, m, directory)
    path = profile_of(kept)
    with open(path, 'rb') as f:
        good = f.read()
    rng = random.Random(9)
    broken = bytearray(good)
    broken[rng.randrange(len(good))] ^= 0x40
    for what, content in (('truncated', good[:len(good) // 2]), ('empty', b''), ('random', rng.randbytes(5000)),
                          ('damaged', bytes(broken)), ('huge', b'\0' * (5 << 20))):
        with open(path, 'wb') as f:
            f.write(content)
        with t.mount(server, profile_dir=kept) as m:
            m.log_wait('is not used')
            loaded(t, m, directory)
            equal(m.process.poll(), None, f'status of the daemon with a {what} profile')
    # Of another version: it is not even looked at.
    name = sorted(e.name for e in os.scandir(directory) if e.name.endswith('.safetensors'))[0]
    with open(os.path.join(directory, name), 'r+b') as f:
        f.seek(-100, os.SEEK_END)
        f.write(b'z' * 100)
    server.client().put_file(BUCKET, name, os.path.join(directory, name))
    with t.mount(server, profile_dir=kept) as m:
        loaded(t, m, directory)
        equal(m.get('prefetch/profile'), 'none', 'profile')


@options(timeout=90)
def test_files_that_are_opened_again_and_again(t):
    """Loaders open each shard up to eight times; a plan does not wait for what the page cache has."""
    server, directory, total = model_server(t, shards=8, size=192 * MIB)
    with t.mount(server, memory='64MiB', prefetch='auto') as m:
        for _ in range(4):
            slices(t, m, directory, 0, 2)
        before = m.stats()
        slices(t, m, directory, 2, 6)
        after = m.stats()
        hits = after['hit_bytes'] - before['hit_bytes'] + after['direct_bytes'] - before['direct_bytes']
        check(after['s3_requests'] - before['s3_requests'] <= 60,
              f'{after["s3_requests"] - before["s3_requests"]} requests for six shards of 24 MiB')
        check(hits > 0, 'nothing was fetched ahead')
        check(after['fetched_bytes'] <= total * 1.05, f'{after["fetched_bytes"]} bytes fetched of {total}')


@options(timeout=90)
def test_a_second_pass_is_fetched_ahead_too(t):
    server, directory, total = model_server(t)
    with t.mount(server, memory='512MiB') as m:
        loaded(t, m, directory)
        for name in os.listdir(directory):
            fd = os.open(m.file(name), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        before = m.stats()
        loaded(t, m, directory)
        after = m.stats()
        check(after['s3_requests'] - before['s3_requests'] <= 60,
              f'{after["s3_requests"] - before["s3_requests"]} requests for {total >> 20} MiB')
        check(after['fetched_bytes'] <= total * 2.1, f'{after["fetched_bytes"]} bytes fetched for two passes of {total}')


@options(timeout=90, san=True)
def test_a_profile_that_came_with_the_data_is_used_and_not_shown(t):
    server, directory, total = model_server(t, shards=6)
    kept = os.path.join(t.directory, 'profiles')
    with t.mount(server, profile_dir=kept) as m:
        wanted = slices(t, m, directory, 1, 2)
    path = profile_of(kept)
    with open(path, 'rb') as f:
        server.client().put(BUCKET, f'.penstock/profiles/{os.path.basename(path)}', f.read())
    with t.mount(server, profile_dir=os.path.join(t.directory, 'empty')) as m:
        settled(m, wanted * 0.95)
        time.sleep(0.5)
        fetched = m.stats()['fetched_bytes']
        check(fetched <= wanted * 1.1 + MIB, f'{fetched} bytes were fetched, {wanted} had been read')
        check('.penstock' not in os.listdir(m.directory), 'the private directory is shown')
        check(not os.path.exists(m.file('.penstock')), 'the private directory can be looked up')
        check(not os.path.exists(m.file('.penstock/profiles')), 'what is in it can be looked up')
        loaded(t, m, directory)

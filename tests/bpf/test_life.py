# SPDX-License-Identifier: Apache-2.0
"""The tracer comes with its first volume and goes with its last, whatever happens in between."""
import errno
import os
import stat
import subprocess

from harness import (DIRECTORIES, PAGE, ROOT, bpftool, build_path, check, equal, eventually, in_child, in_kernel, json,
                     mapped, opened, run)
from test_access import read_pages


def one_read(disk):
    read_pages(os.path.join(disk, 'file'), [5])


def test_last_volume_leaves_nothing(bench):
    disks = [bench.disk('one'), bench.disk('two')]
    tracers = [bench.tracer(disk, f'volume-{i}') for i, disk in enumerate(disks)]
    ids = bench.pinned_ids()
    check(len(ids['prog']) == 7 and len(ids['link']) == 7, lambda: f'pinned: {ids}')
    tracers[0].stop()
    equal(bench.pinned_ids(), ids, 'pins while one volume is left')
    tracers[1].stop()
    bench.check_gone(ids)
    check(not os.path.ismount(bench.bpffs), 'the BPF file system is still mounted')


def test_foreign_bpf_file_system_stays(bench):
    run('mount', '-t', 'bpf', 'bpf', bench.bpffs)
    bench.tracer(bench.disk('disk')).stop()
    check(os.path.ismount(bench.bpffs), 'a BPF file system that others mounted has gone')
    check(not os.path.exists(bench.pin()), 'pins are left')


def test_own_bpf_file_system_stays_while_others_use_it(bench):
    t = bench.tracer(bench.disk('disk'))
    os.mkdir(os.path.join(bench.bpffs, 'theirs'))
    t.stop()
    check(os.path.isdir(os.path.join(bench.bpffs, 'theirs')), "others' directory has gone")
    os.rmdir(os.path.join(bench.bpffs, 'theirs'))


def test_names_and_modes(bench):
    bench.tracer(bench.disk('disk'))
    for directory in DIRECTORIES:
        equal(stat.S_IMODE(os.stat(bench.pin(directory)).st_mode), 0o700, directory)
        for name in os.listdir(bench.pin(directory)):
            if directory != 'links':
                kind = 'map' if directory == 'maps' else 'prog'
                shown = bpftool(kind, 'show', 'pinned', bench.pin(directory, name))['name']
                check(shown.startswith('penstock_') and len(shown) <= 15, f'{directory}/{name} is named {shown}')


def test_second_process_joins(bench):
    disks = [bench.disk('one'), bench.disk('two')]
    first = bench.tracer(disks[0], 'first')
    programs = bench.program_ids()
    second = bench.tracer(disks[1], 'second')
    equal(bench.program_ids(), programs, 'programs')
    first.stop()
    one_read(disks[0])
    one_read(disks[1])
    equal([a['dev'] for a in second.stop()], [second.dev], 'devices')


def test_killed_owner_is_cleaned_up(bench):
    t = bench.tracer(bench.disk('disk'))
    ids = bench.pinned_ids()
    t.kill()
    equal(len(bench.dump('volumes')), 1, 'volumes after the kill')
    equal(bench.command('clean'), [{'rc': 0, 'message': ''}], 'clean')
    bench.check_gone(ids)


def test_next_start_sweeps_what_was_killed(bench):
    disks = [bench.disk('one'), bench.disk('two')]
    killed = bench.tracer(disks[0], 'killed')
    one_read(disks[0])
    t = bench.tracer(disks[1], 'next')
    killed.kill()
    t.stop()
    t = bench.tracer(disks[1], 'next')
    equal([e['value']['id'] for e in bench.dump('volumes')], ['next'], 'volumes')
    equal(bench.dump('files'), [], 'counters of the one that has gone')


def test_unmounted_volume_is_swept_though_its_owner_lives(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    ids = bench.pinned_ids()
    check(bench.command('clean')[-1]['rc'] == 1, 'a living volume was removed')
    run('umount', '-l', disk)
    try:
        equal(bench.command('clean'), [{'rc': 0, 'message': ''}], 'clean')
    finally:
        run('mount', '-o', 'loop', disk + '.img', disk)
    t.stop()
    bench.check_gone(ids)


def test_same_id_is_replaced(bench):
    disk = bench.disk('disk')
    first = bench.tracer(disk, 'same')
    second = bench.tracer(disk, 'same')
    first.stop()
    one_read(disk)
    equal([e['value']['owner_pid'] for e in bench.dump('volumes')], [second.process.pid], 'owners')
    equal(len(second.stop()), 1, 'accesses')


def test_other_version_is_replaced_and_its_volumes_kept(bench):
    disks = [bench.disk('one'), bench.disk('two')]
    other = ['--object', build_path('tests', 'bpf', 'other.bpf.o'), '--version', '99']
    old = bench.tracer(disks[0], 'old', options=other)
    one_read(disks[0])
    eventually(lambda: old.drops()['unknown'] == 1, 'a record of another version')
    before = bench.pinned_ids()
    equal(bench.dump('state')[0]['value']['version'], 99, 'version')

    new = bench.tracer(disks[1], 'new')
    after = bench.pinned_ids()
    check(not before['prog'] & after['prog'], 'old programs are still pinned')
    check(not before['link'] & after['link'], 'old links are still pinned')
    equal(bench.dump('state')[0]['value']['version'], 1, 'version')
    equal({e['value']['id']: e['key'] for e in bench.dump('volumes')}, {'old': old.dev, 'new': new.dev}, 'volumes')
    # The flush iterator is held by its readers until they end.
    eventually(lambda: not before['prog'] & in_kernel('prog') - in_kernel('prog', 'penstock_flush'),
               'old programs are still in the kernel')
    one_read(disks[0])
    one_read(disks[1])
    for t in (new, old):
        equal([(a['dev'], a['offset']) for a in t.stop()], [(t.dev, 5 * PAGE)], 'accesses')
    bench.check_gone(after)


def broken_object(bench, *events):
    """The tracer's object with tracepoints that no kernel has."""
    with open(build_path('bpf', 'access.bpf.o'), 'rb') as f:
        data = f.read()
    for event in events:
        check(event in data, f'no {event} in the object')
        data = data.replace(event, event[:-4] + b'gone')
    path = os.path.join(bench.directory, 'broken.o')
    with open(path, 'wb') as f:
        f.write(data)
    return ['--object', path, '--version', '1']


def test_refused_programs_are_told_and_others_stand_in(bench):
    disk = bench.disk('disk')
    options = broken_object(bench, b'tp_btf/mm_filemap_get_pages', b'tp_btf/sched_process_exit')
    t = bench.tracer(disk, options=options)
    verdicts = {p['name']: p for p in bench.command('programs')[:-1]}
    for name in ('penstock_read', 'penstock_exit'):
        check(verdicts[name]['error'] < 0 and 'no such tracepoint' in verdicts[name]['reason'], f'{verdicts[name]}')
    equal({n for n, v in verdicts.items() if v['stands_in'] and not v['error']}, {'penstock_rread'}, 'stand-ins')
    equal(set(os.listdir(bench.pin('links'))), {n for n, v in verdicts.items() if not v['error']}, 'links')
    check(any('refuses penstock_read' in line for line in t.log), 'the log does not tell')
    one_read(disk)
    equal([(a['kind'], a['offset']) for a in t.stop()], [('read', 5 * PAGE)], 'accesses')


def test_mappings_have_stand_ins_too(bench):
    disk = bench.disk('disk')
    with opened(os.path.join(disk, 'file')) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    options = broken_object(bench, b'tp_btf/mm_filemap_fault', b'tp_btf/mm_filemap_map_pages')
    t = bench.tracer(disk, options=options)
    in_child(lambda: _touch(os.path.join(disk, 'file'), 9))
    equal([(a['kind'], a['offset']) for a in t.stop()][0], ('fault', 9 * PAGE), 'the first access')
    check('map' in [a['kind'] for a in t.accesses], 'nothing was seen mapped')


def _touch(path, page):
    with mapped(path) as m:
        m[page * PAGE]


def test_no_program_at_all_is_an_error_and_leaves_nothing(bench):
    disk = bench.disk('disk')
    refused = bench.command('start', disk, 'volume', wrap=('setpriv', '--bounding-set', '-perfmon,-bpf,-sys_admin'))
    check(refused[-1]['rc'] < 0 and refused[-1]['message'], f'{refused}')
    check(not os.path.exists(bench.pin()) or not os.listdir(bench.pin('links')), 'links are left')
    probe = bench.command('probe', wrap=('setpriv', '--bounding-set', '-perfmon,-bpf,-sys_admin'))
    check(all(p['error'] for p in probe[:-1]), f'{probe}')
    equal(bench.command('probe')[-1]['rc'], 7, 'programs that this kernel takes')


def test_unload_takes_it_from_living_volumes(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    ids = bench.pinned_ids()
    equal(bench.command('unload'), [{'rc': 0, 'message': ''}], 'unload')
    one_read(disk)
    equal(t.drops()['rc'], -errno.ENOENT, 'drops of a volume without tracer')
    equal(t.stop(), [], 'accesses')
    bench.check_gone(ids)


def test_rest_of_a_crash_is_replaced(bench):
    disk = bench.disk('disk')
    bench.tracer(disk).kill()
    os.unlink(bench.pin('maps', 'state'))
    t = bench.tracer(disk)
    one_read(disk)
    equal(len(t.stop()), 1, 'accesses')


def test_many_come_and_go_at_once(bench):
    disk = bench.disk('disk')
    script = 'for i in 1 2 3; do echo stop | "$@" start "$0" volume-$$ >/dev/null || exit 1; done'
    # Half of them have a run directory of their own, as in a container.
    jobs = [subprocess.Popen(['sh', '-c', script, disk, *bench.tracer_command(run_dir=run_dir)], text=True,
                             stderr=subprocess.PIPE)
            for run_dir in [None] * 3 + [os.path.join(bench.directory, f'run-{i}') for i in range(3)]]
    for job in jobs:
        _, err = job.communicate(timeout=50)
        equal(job.returncode, 0, f'status; {err}')
    check(not os.path.exists(bench.pin()), 'pins are left')
    check(not os.path.ismount(bench.bpffs), 'the BPF file system is still mounted')


def shape(value):
    """The members of a JSON value, without what they hold."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    return 'list' if isinstance(value, list) else 'value'


def test_bpftool_shows_what_the_readme_says(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    one_read(disk)
    with open(os.path.join(ROOT, 'bpf', 'README.md')) as f:
        samples = f.read().split('```json\n')[1:]
    compared = set()
    for sample in samples:
        sample = json.loads(sample.partition('```')[0])
        name = sample['map']
        if name in ('latency', 'gpu'):
            continue  # Nothing here answers FUSE requests or copies to a GPU: test_fuse.py and test_gpu.py compare.
        live = bench.dump(name)
        check(live, f'{name} is empty')
        equal(shape(live[0]), shape(sample['formatted']), f'members of {name}')
        compared.add(name)
    equal(compared, {'files', 'cgroups', 'volumes', 'drops', 'programs', 'state'}, 'maps with a sample')

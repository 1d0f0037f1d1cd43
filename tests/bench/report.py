# SPDX-License-Identifier: Apache-2.0
"""The benchmark's figures as Markdown tables and as a plot."""
import os
import platform
import shutil
import subprocess

import peers

SHAPE_TITLES = {'unshaped': 'Unshaped: the server at full speed',
                'shaped': 'Shaped: 20 ms before each reply, 90 MiB/s for each connection'}

PLOT = '''
set terminal svg noenhanced size 1100,420 font "sans,12" background "#ffffff"
set output "{svg}"
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set yrange [0:1]
set ylabel "share of a bare receiver's bandwidth"
set grid ytics
set key below maxrows 1
set multiplot layout 1,{panels}
{panels_text}
unset multiplot
'''


def number(value):
    if value is None:
        return '-'
    return f'{value:,.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def machine():
    return f'kernel {platform.release()}, {os.cpu_count()} cores, {platform.machine()}, one noisy machine'


class Results:
    def __init__(self, options, rows, columns, transports, cells):
        self.options, self.rows, self.columns = options, rows, columns
        self.transports, self.cells = transports, cells

    # -- Markdown -----------------------------------------------------------------------------------------------

    def _table(self, shape, title, text):
        lines = [f'| {title} | ' + ' | '.join(self.columns) + ' |', '|---' * (len(self.columns) + 1) + '|']
        for row in self.rows:
            cells = [self.cells.get((shape, row.name, column), (None, None)) for column in self.columns]
            lines.append(f'| {row.title} | ' + ' | '.join(text(row, *cell) for cell in cells) + ' |')
        return lines

    @staticmethod
    def _figure(row, cell, error):
        if not cell:
            return 'failed' if error else '-'
        if cell['stopped']:
            return f'> {row.cut_s} {row.unit}'
        text = f'{number(cell["figure"])} ({cell["share"]:.2f})' if row.objects else number(cell['figure'])
        return text + (' *' if error else '')

    @staticmethod
    def _cost(row, cell, error):
        if not cell:
            return '-'
        cpu = f'{number(cell["cost"])} {row.cost_unit}'
        fetched = f'{cell["fetched"]:.2f}' if cell['fetched'] is not None else '-'
        return f'{cpu} · {fetched} · {cell["peak_mib"]:.0f}'

    def _limit_of(self, shape, row):
        limits = [cell['limit'] for (s, r, _), (cell, _) in self.cells.items() if s == shape and r == row.name and cell]
        return f'{row.title}: {number(sum(limits) / len(limits))} {row.unit}' if limits else None

    def write_markdown(self, path):
        o = self.options
        lines = [f'Medians of {o.rounds} alternating rounds, files of {o.size}, cold mounts; {machine()}; '
                 'objects on versitygw v1.8.0 over http (shaped: behind an nginx that delays and caps), '
                 'listings on the tests\' own s3d with synthetic keys.', '']
        for shape in o.shapes:
            lines += [f'### {SHAPE_TITLES[shape]}', '']
            limits = filter(None, (self._limit_of(shape, row) for row in self.rows))
            lines += ['A bare libcurl receiver (16 connections; one for the first 64 KiB and for lists): '
                      + '; '.join(limits) + '.', '']
            lines += self._table(shape, 'figure (share of the bare receiver, measured just before)', self._figure)
            lines += ['']
            lines += self._table(shape, 'daemon CPU · bytes fetched / wanted · peak RSS in MiB', self._cost)
            lines += ['']
        if self.transports:
            lines += ['### Transports on bytes the daemon holds', '',
                      '| | io_uring | dev | ratio |', '|---|---|---|---|']
            lines += [f'| {name} | {number(v["io_uring"])} | {number(v["dev"])} | {v["io_uring"] / v["dev"]:.2f} |'
                      for name, v in self.transports.items()]
            lines += ['']
        lines += self._notes()
        with open(path, 'w') as f:
            f.write('\n'.join(lines))

    def _notes(self):
        units = ', '.join(f'{row.unit} for {row.name}' for row in self.rows if row.unit != 'MB/s')
        lines = [f'Figures are MB/s{" but " + units if units else ""}. Reads are cut at 30 s, listings at 60 s.'
                 + ''.join(f' {peer.name}: {peers.version(peer)}.' for peer in peers.available()
                           if peer.name in self.columns), '']
        failed = {}
        for (_, row, column), (_, error) in self.cells.items():
            if error:
                failed.setdefault(column, (error, []))[1].append(row)
        lines += [f'- {column} failed in {", ".join(dict.fromkeys(rows))}: {error.splitlines()[0][:200]}'
                  for column, (error, rows) in failed.items()]
        return lines

    # -- plot ---------------------------------------------------------------------------------------------------

    def write_plot(self, directory):
        rows = [row for row in self.rows if row.unit == 'MB/s']
        if not rows or not self.columns or not shutil.which('gnuplot'):
            return
        panels = []
        for shape in self.options.shapes:
            data = os.path.join(directory, f'{shape}.dat')
            with open(data, 'w') as f:
                f.write('row ' + ' '.join(f'"{column}"' for column in self.columns) + '\n')
                for row in rows:
                    cells = [self.cells.get((shape, row.name, column), (None, None))[0] for column in self.columns]
                    f.write(f'"{row.name}" ' + ' '.join(f'{c["share"]:.3f}' if c else '0' for c in cells) + '\n')
            bars = ', '.join(f'"{data}" using {i + 2}{":xtic(1)" if not i else ""} title columnheader({i + 2})'
                             for i in range(len(self.columns)))
            panels.append(f'set title "{shape}"\nplot {bars}')
        script = PLOT.format(svg=os.path.join(directory, 'bench.svg'), panels=len(panels),
                             panels_text='\n'.join(panels))
        subprocess.run(['gnuplot'], input=script, text=True, check=True)

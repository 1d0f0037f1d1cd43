# SPDX-License-Identifier: Apache-2.0
"""The loads as Markdown tables and as a plot."""
import os
import shutil
import subprocess

import peers
from report import PLOT, machine, number


class Results:
    def __init__(self, options, shapes, rows, columns, profiles, alone, limits, cells):
        self.options, self.shapes, self.rows, self.columns = options, shapes, rows, columns
        self.profiles, self.alone, self.limits, self.cells = profiles, alone, limits, cells

    def _cell(self, shape, row, column):
        return self.cells.get((shape, row.name, column.name), (None, None))

    # -- Markdown -----------------------------------------------------------------------------------------------

    def _table(self, shape, title, text):
        lines = [f'| {title} | ' + ' | '.join(column.title for column in self.columns) + ' |',
                 '|---' * (len(self.columns) + 1) + '|']
        lines += [f'| {row.name} {row.title} | '
                  + ' | '.join(text(*self._cell(shape, row, column)) for column in self.columns) + ' |'
                  for row in self.rows]
        return lines + ['']

    def _seconds(self, cell, error):
        if not cell:
            return 'failed' if error else '-'
        if cell['cut']:
            return f'> {self.options.cut} s'
        return f'{number(cell["seconds"])} ({cell["share"]:.2f})' + (' *' if error else '')

    @staticmethod
    def _waits(cell, _):
        if not cell or cell['cut']:
            return '-'
        return (f'{number(cell["first_tensor_s"] * 1000)} · {number(cell["p99_ms"])} · {number(cell["max_ms"])} · '
                f'{cell["major_faults"]:,.0f}')

    @staticmethod
    def _cost(cell, _):
        if not cell or cell['cut']:
            return '-'
        return (f'{number(cell["cpu_s_per_gib"])} · {cell["fetched"]:.2f} · {cell["gets"]:,.0f} · '
                f'{cell["peak_mib"]:,.0f}')

    def write_markdown(self, path):
        o = self.options
        lines = [f'Loads of models of {o.size}, replayed with penstock-load; medians of {o.rounds} alternating rounds, '
                 f'a fresh mount for each; {machine()}; objects in the memory of the tests\' own s3d over http.',
                 'The second start ' + ('has the profile that the first one recorded.' if self.profiles else
                                        'has nothing from the first one: this build records no profiles.'),
                 'Seconds of the loaders alone, on local files in the page cache (P11: from the disk): '
                 + ', '.join(f'{row.name} {number(self.alone[row.name])}' for row in self.rows) + '.', '']
        for shape in o.shapes:
            lines += [f'### {self.shapes[shape]}', '',
                      'Seconds of a bare libcurl receiver for the same model (16 connections, no slow requests): '
                      + ', '.join(f'{row.name} {number(self.limits[shape, row.name])}' for row in self.rows) + '.', '']
            lines += self._table(shape, 'seconds to the last byte (share of the bare receiver)', self._seconds)
            lines += self._table(shape, 'ms to the first tensor · p99 · longest wait, ms · major faults', self._waits)
            lines += self._table(shape, 'daemon CPU-s/GiB · bytes fetched / wanted · GETs · peak RSS in MiB', self._cost)
        lines += self._notes()
        with open(path, 'w') as f:
            f.write('\n'.join(lines))

    def _notes(self):
        names = {column.name for column in self.columns}
        lines = [f'Loads are given up after {self.options.cut} s. Waits are those of single reads, or of steps of '
                 '64 KiB in a mapping.'
                 + ''.join(f' {peer.name}: {peers.version(peer)}.' for peer in peers.available() if peer.name in names)]
        failed = {}
        for (_, row, column), (_, error) in self.cells.items():
            if error:
                failed.setdefault((column, error.splitlines()[0][:200]), []).append(row)
        lines += [f'- {column} failed in {", ".join(dict.fromkeys(found))}: {error}'
                  for (column, error), found in failed.items()]
        return lines

    # -- plot ---------------------------------------------------------------------------------------------------

    def write_plot(self, directory):
        if not shutil.which('gnuplot'):
            return
        panels = []
        for shape in self.options.shapes:
            data = os.path.join(directory, f'load-{shape}.dat')
            with open(data, 'w') as f:
                f.write('row ' + ' '.join(f'"{column.title}"' for column in self.columns) + '\n')
                for row in self.rows:
                    cells = [self._cell(shape, row, column)[0] for column in self.columns]
                    f.write(f'"{row.name}" ' + ' '.join(f'{c["share"]:.3f}' if c and not c['cut'] else '0'
                                                        for c in cells) + '\n')
            bars = ', '.join(f'"{data}" using {i + 2}{":xtic(1)" if not i else ""} title columnheader({i + 2})'
                             for i in range(len(self.columns)))
            panels.append(f'set xtics rotate\nset title "{shape}"\nplot {bars}')
        script = PLOT.format(svg=os.path.join(directory, 'load.svg'), panels=len(panels),
                             panels_text='\n'.join(panels))
        subprocess.run(['gnuplot'], input=script, text=True, check=True)

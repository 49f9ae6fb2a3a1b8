"""Faults that are no single command's: many processes, threads, files and images."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from commands import COMMANDS, Commands
from PIL import Image
from sandbox import isolate, mount, resident, wait

from mmvlr.apis import FaceInferencer
from mmvlr.datasets.finding import find_images
from mmvlr.identification import Gallery


class Loads(Commands):
    """What befalls all commands: each load returns tries, what is wrong, and a note."""

    def enroll_at_once(self) -> tuple:
        """Enroll 8 people into one gallery by 8 processes at once."""
        wrong = []
        for _ in range(self.kills):
            out = self.new(COMMANDS['enroll'])
            line = 'enroll {out} {base}/people/pN --person pN --model {model} --device cpu'
            pids = [self.start(line.replace('pN', f'p{n}'), out) for n in range(8)]
            codes = [wait(pid) for pid in pids]
            lost = {f'p{n}' for n in range(8)} - {*Gallery.load(out).people}
            if any(codes) or lost or len(Gallery.load(out)) != 20:
                wrong.append(f'codes {codes}, lost: {sorted(lost)}')
            shutil.rmtree(out)
        return 8 * self.kills, wrong, 'people enrolled, none lost'

    def shared_memory(self) -> tuple:
        """Train with two workers where /dev/shm has 64 MB, and where it has 1 MB."""
        wrong, used = [], []
        words = COMMANDS['train'].words + ' --max-iters 8 --cfg-options '
        words += 'train_dataloader.num_workers=2 train_dataloader.dataset.num_people=40'
        for size in ('64m', '1m'):

            def attempt(size: str = size) -> list:
                mount(Path('/dev/shm'), f'size={size}')
                out = self.new(COMMANDS['train'])
                pid, most = self.start(words + ' train_dataloader.batch_size=64', out), 0
                while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    most = max(most, shutil.disk_usage('/dev/shm').used)
                    time.sleep(0.02)
                return [most, wait(pid)]

            most, code = isolate(attempt, self.work)
            used.append(most)
            wrong += [f'{size}: ended with {code}'] if code else []
        return 2, wrong, f'64 MB and 1 MB; at most {max(used):,} bytes of it used'

    def many_files(self, count: int = 100_000) -> tuple:
        """List a folder of 100,000 images, and judge those of a folder of 1,000."""
        source, wrong = self.base / 'people' / 'p0' / '0.png', []
        for folder, number in (('many', count), ('some', 1000)):
            for index in range(number):
                if not index % 1000:
                    (self.work / folder).mkdir(exist_ok=True)
                    original = self.work / folder / f'{index:06}.png'
                    shutil.copyfile(source, original)
                else:
                    os.link(original, self.work / folder / f'{index:06}.png')
        begun, before = time.monotonic(), resident()
        found = len(find_images(self.work / 'many').images)
        listing, grown = time.monotonic() - begun, resident() - before
        wrong += [] if found == count else [f'{found} of {count} found']
        begun = time.monotonic()
        line = f'quality {self.work}/some --out {{out}}/a.csv --model {{model}} --device cpu'
        out = self.new(COMMANDS['embed'])
        self._call(line, out)
        rows = len((out / 'a.csv').read_text().splitlines()) - 1
        wrong += [] if rows == 1000 else [f'{rows} rows of 1000']
        seconds = time.monotonic() - begun
        for folder in ('many', 'some'):
            shutil.rmtree(self.work / folder)
        note = f'listed in {listing:.1f} s with {grown:.0f} MiB; 1,000 judged in {seconds:.1f} s'
        return count, wrong, note

    def threads(self, seconds: float = 20) -> tuple:
        """Embed, enroll and search from 8 threads with one inferencer and one gallery."""
        inferencer = FaceInferencer(str(self.model), 'cpu', batch_size=8)
        people = sorted((self.base / 'people').iterdir())
        expected = [inferencer.embed(folder) for folder in people]
        gallery = Gallery(inferencer.identity)
        for person, faces in zip(people, expected, strict=True):
            gallery.enroll(person.name, faces.embedding, faces.qualities)
        alone = [gallery.search(faces.embedding, k=1).person for faces in expected]
        end = time.monotonic() + seconds

        def work(number: int) -> list[str]:
            wrong, turn = [], 0
            while time.monotonic() < end:
                index, turn = (number + turn) % len(people), turn + 1
                faces = inferencer.embed(people[index])
                if not np.array_equal(faces.embedding, expected[index].embedding):
                    wrong.append('another embedding')
                gallery.enroll(f'{number}-{turn}', -faces.embedding)
                if not np.array_equal(gallery.search(faces.embedding, k=1).person, alone[index]):
                    wrong.append('another person')
                gallery.remove(f'{number}-{turn}')
            return [*wrong, turn]

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(8)))
        wrong = [each for part in found for each in part[:-1]]
        wrong += [] if gallery.people == [p.name for p in people] else ['the gallery differs']
        return sum(part[-1] for part in found), wrong, 'rounds: embed, enroll, search, remove'

    def memory(self) -> tuple:
        """Embed images of all sizes and kinds, broken ones between them; watch the memory."""
        seconds = self.mixed_seconds
        rng, inferencer = np.random.default_rng(0), FaceInferencer(str(self.model), 'cpu')
        folder, points, images, unusable = self.work / 'mixed', [], 0, 0
        folder.mkdir()
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            arrays, files = [], []
            for index in range(24):
                height, width = rng.integers(8, 300, 2)
                shape = (height, width, 3) if index % 3 else (height, width)
                arrays.append(rng.integers(0, 256, shape, np.uint8))
                files.append(folder / f'{index}.{("png", "jpg", "bmp")[index % 3]}')
                Image.fromarray(arrays[-1]).save(files[-1])
            for path in files[::5]:
                path.write_bytes(path.read_bytes()[: rng.integers(0, 60)])
            found = inferencer.embed(files)
            inferencer.embed(arrays)
            images, unusable = images + 48, unusable + len(found.failures)
            points.append((images, resident(), now))
        half = points[len(points) // 2 :]
        slope = np.polyfit([p[0] for p in half], [p[1] for p in half], 1)[0] * 1000
        note = f'{seconds:.0f} s, {unusable:,} of them broken; {points[0][1]:.0f} MiB at first, '
        note += f'{half[0][1]:.0f} at half time, {half[-1][1]:.0f} at the end: '
        note += f'{slope:+.2f} MiB per 1,000 images'
        grown = half[-1][1] - half[0][1]
        return images, [f'{grown:.0f} MiB more'] if grown > 20 else [], note

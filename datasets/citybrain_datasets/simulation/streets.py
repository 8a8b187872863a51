"""The street plan: a river city with a gridded core, a ring expressway, suburbs and gateways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citybrain_datasets.simulation.plan import Plan

BLOCK = 1000.0
"""Distance between neighbouring streets of the core, metres."""


@dataclass(frozen=True)
class RoadClass:
    """``capacity`` is per lane and hour at the segment's downstream end, signals included."""

    lanes: int
    speed_kmh: float
    capacity: float
    priority: int


CLASSES = {
    "motorway": RoadClass(2, 100, 2000, 9),
    "expressway": RoadClass(2, 80, 1900, 8),
    "ramp": RoadClass(2, 60, 1100, 5),
    "arterial": RoadClass(2, 60, 850, 4),
    "collector": RoadClass(1, 50, 750, 3),
    "local": RoadClass(1, 40, 650, 2),
}

# East–west streets are named after birds of the shore, north–south streets after plants.
_ROWS = [
    ("Haiyan", "海燕"),
    ("Bailu", "白鹭"),
    ("Linjiang", "临江"),
    ("Binhe", "滨河"),
    ("Cangying", "苍鹰"),
    ("Xique", "喜鹊"),
    ("Yuanyang", "鸳鸯"),
    ("Hongyan", "鸿雁"),
    ("Huangli", "黄鹂"),
    ("Danhe", "丹鹤"),
    ("Feicui", "翡翠"),
    ("Que'er", "雀儿"),
]
_COLUMNS = [
    ("Wutong", "梧桐"),
    ("Yinxing", "银杏"),
    ("Guihua", "桂花"),
    ("Furong", "芙蓉"),
    ("Luwei", "芦苇"),
    ("Shuishan", "水杉"),
    ("Zijing", "紫荆"),
    ("Meihua", "梅花"),
    ("Lanhua", "兰花"),
    ("Qingzhu", "青竹"),
    ("Haitang", "海棠"),
    ("Xiangzhang", "香樟"),
]
_TOWNS = [
    ("Heron Bay New Town", "鹭湾新城"),
    ("Salt Flats Park", "盐田园区"),
    ("Pine Hills", "松岭镇"),
    ("Fishing Harbour", "渔港镇"),
]
_COMPASS = [
    ("east", "东"),
    ("north-east", "东北"),
    ("north", "北"),
    ("north-west", "西北"),
    ("west", "西"),
    ("south-west", "西南"),
    ("south", "南"),
    ("south-east", "东南"),
]


@dataclass(frozen=True)
class Junction:
    """A crossing at ``x`` east and ``y`` north of the centre, metres."""

    id: str
    x: float
    y: float
    signals: bool
    kind: str
    """core, ring, town or gateway."""


@dataclass(frozen=True)
class Street:
    """One directed segment; every undirected street is two of them."""

    id: str
    source: Junction
    target: Junction
    road_class: str
    name: str
    name_zh: str

    @property
    def middle(self) -> tuple[float, float]:
        return (self.source.x + self.target.x) / 2, (self.source.y + self.target.y) / 2

    @property
    def length(self) -> float:
        return float(np.hypot(self.target.x - self.source.x, self.target.y - self.source.y))


def lay_out(plan: Plan) -> list[Street]:
    """The smallest plan with at least ``plan.segments`` directed segments, in a fixed order."""
    for side in range(3, 24):
        streets = _lay_out(side, plan.seed)
        if len(streets) >= plan.segments:
            return streets
    raise ValueError(f"no plan has {plan.segments} segments")


def district(x: float, y: float, reach: float) -> str:
    """The district that looks after a place; ``reach`` is half the width of the core, all in metres."""
    if max(abs(x), abs(y)) > reach + 1.6 * BLOCK:
        return "Outer district · 外围区"
    if max(abs(x), abs(y)) < 0.45 * reach:
        return "Old Town district · 老城区"
    bank, zh = ("North Bank", "北岸") if y > 0 else ("South Bank", "南岸")
    half, zh_half = ("East", "东") if x > 0 else ("West", "西")
    return f"{bank} {half} district · {zh}{zh_half}区"


def _lay_out(side: int, seed: int) -> list[Street]:
    rng = np.random.default_rng([seed, 1])
    centre = (side - 1) / 2
    main = {1, side - 2} if side > 3 else {1}
    bridges = {1, side // 2, side - 2}
    river = side // 2  # flows between the rows river - 1 and river

    links: list[tuple[Junction, Junction, str, str, str]] = []
    core: dict[tuple[int, int], Junction] = {}
    for row in range(side):
        for column in range(side):
            dx, dy = rng.uniform(-120, 120, 2)
            x, y = (column - centre) * BLOCK + dx, (row - centre) * BLOCK + dy
            # Signals stand where a main street or the embankment crosses.
            signals = row in main or column in main or row in (river - 1, river)
            core[row, column] = Junction(f"c{row}{column:02d}", round(x, 1), round(y, 1), signals, "core")
    for row in range(side):
        kind = "arterial" if row in main else "collector" if row in (river - 1, river) else "local"
        name, zh = _ROWS[row % len(_ROWS)]
        links += [(core[row, c], core[row, c + 1], kind, f"{name} Road", f"{zh}路") for c in range(side - 1)]
    for column in range(side):
        kind = "arterial" if column in main else "collector" if column == side // 2 else "local"
        name, zh = _COLUMNS[column % len(_COLUMNS)]
        for row in range(side - 1):
            if row + 1 == river and column not in bridges:
                continue
            bridge = row + 1 == river
            links.append(
                (
                    core[row, column],
                    core[row + 1, column],
                    kind,
                    f"{name} {'Bridge' if bridge else 'Street'}",
                    f"{zh}{'大桥' if bridge else '街'}",
                )
            )
    links += _ring_and_beyond(side, centre, core)

    streets: list[Street] = []
    serial: dict[str, int] = {}
    for first, second, kind, name, zh in links:
        serial[name] = serial.get(name, 0) + 1
        for a, b in ((first, second), (second, first)):
            turn = int(np.round(np.degrees(np.arctan2(b.y - a.y, b.x - a.x)) / 90)) % 4 * 2
            heading, sign = _COMPASS[turn]
            streets.append(
                Street(
                    f"R{len(streets) + 1:03d}",
                    a,
                    b,
                    kind,
                    f"{name} {serial[name]}, {heading}bound",
                    f"{zh}{serial[name]}段（向{sign}）",
                )
            )
    return streets


def _ring_and_beyond(
    side: int, centre: float, core: dict[tuple[int, int], Junction]
) -> list[tuple[Junction, Junction, str, str, str]]:
    """The ring expressway, its ramps into the core, and what lies outside it."""
    reach = centre * BLOCK + 900
    count = max(8, 4 * round(7.2 * reach / 1500 / 4))
    ring = []
    for k in range(count):
        angle = 2 * np.pi * (k + 0.5) / count
        # A rounded square; the larger the core, the sharper must be the corners of the ring to stay outside it.
        power = 4 if side < 8 else 24
        radius = reach / (np.cos(angle) ** power + np.sin(angle) ** power) ** (1 / power)
        ring.append(
            Junction(f"o{k:02d}", round(radius * np.cos(angle), 1), round(radius * np.sin(angle), 1), False, "ring")
        )
    edge = [j for (row, column), j in core.items() if row in (0, side - 1) or column in (0, side - 1)]
    links = []
    for k, node in enumerate(ring):
        after = ring[(k + 1) % count]
        word, zh = _COMPASS[int(np.round(np.degrees(np.arctan2(node.y + after.y, node.x + after.x)) / 45)) % 8]
        links.append((node, after, "expressway", f"Ring Expressway {word}", f"环城快速路{zh}段"))
        if k % 2 == 0:
            near = min(edge, key=lambda j: np.hypot(j.x - node.x, j.y - node.y))
            links.append((near, node, "ramp", f"Ring Link {k // 2 + 1}", f"环城连接线{k // 2 + 1}号"))
    for number, k in enumerate(range(1, count, 4)):
        node = ring[k]
        stretch = 1 + 2000 / np.hypot(node.x, node.y)
        gate = Junction(f"g{number}", round(node.x * stretch, 1), round(node.y * stretch, 1), False, "gateway")
        links.append((gate, node, "motorway", f"Lantan Motorway {number + 1}", f"澜滩高速{number + 1}号"))
    towns = 0 if side < 5 else 2 if side < 9 else 4
    for number in range(towns):
        node = ring[3 + 4 * (number * (count // 4) // towns)]
        (name, zh), stretch = _TOWNS[number], 1 + 1500 / np.hypot(node.x, node.y)
        x, y = node.x * stretch, node.y * stretch
        square = [
            Junction(f"t{number}{i}", round(x + 700 * dx, 1), round(y + 700 * dy, 1), False, "town")
            for i, (dx, dy) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1)))
        ]
        links.append((square[0], node, "arterial", f"{name} Avenue", f"{zh}大道"))
        links += [(square[i], square[(i + 1) % 4], "local", f"{name} Lane", f"{zh}巷") for i in range(4)]
    return links

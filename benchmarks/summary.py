"""What `make bench` measured, beside its limits: benchmarks/results.json as one table.

python -m benchmarks.summary
"""

from __future__ import annotations

from benchmarks.measure import RESULTS, recorded, show


def main() -> None:
    rows = [
        [
            row["figure"],
            f"{row['measured']:g}",
            f"{row['limit']:g}",
            "yes" if row["holds"] else "NO",
        ]
        for row in recorded().values()
    ]
    show(["figure", "measured", "limit", "holds"], rows)
    print(f"{sum(row[-1] == 'yes' for row in rows)} of {len(rows)} hold; written to {RESULTS.name}")


if __name__ == "__main__":
    main()

"""Results of the bench as Markdown; scripts/gpu-report.mjs writes the page of the documentation."""


def to_markdown(result):
    lines = ["| case | us | GB/s | TFLOPS | bf16 us | _scaled_mm us | bar |", "| --- " * 7 + "|"]
    for row in result["rows"]:
        if "microseconds" not in row:
            lines.append(f"| {row['case']} | {row.get('error', 'left out')} | | | | | |")
            continue
        numbers = [f"{row['microseconds']:.1f}", f"{row['gigabytesPerSecond']:.0f}", f"{row['teraflops']:.0f}"]
        for name in ("bfloat16Microseconds", "scaledMmMicroseconds"):
            numbers.append(f"{row[name]:.1f}" if name in row else "")
        lines.append(f"| {row['case']} | {' | '.join(numbers)} | {describe_bar(row)} |")
    return "\n".join(lines)


def describe_bar(row):
    if "bar" not in row:
        return ""
    kind, least = row["bar"]
    text = f"{least} TFLOPS" if kind == "TFLOPS" else f"{100 * least:.0f}%"
    return text + {True: ": met", False: ": missed", None: ": not judged"}[row.get("isMet")]

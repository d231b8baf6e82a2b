"""Put tables and figures on one self-contained page -> reports/report.html."""

from robustvae import params
from robustvae.reporting import page
from robustvae.reporting.tables import Results
from robustvae.robustness.finding import Finding
from robustvae.runtime import files
from stages import CORRUPTED, MODELS, REPORTS, run


def main() -> None:
    """Write the page and say where it is."""
    title = params.load().report.title
    warnings = REPORTS / "train" / "warnings.json"
    results = Results(
        metrics=files.read_json(REPORTS / "metrics.json"),
        evaluation=files.read_json(REPORTS / "evaluation.json"),
        losses=files.read_csv(REPORTS / "losses.csv"),
        robustness=files.read_csv(REPORTS / "robustness.csv"),
        config=files.read_json(MODELS / "config.json"),
        corrupted=files.read_json(CORRUPTED / "info.json"),
        figures=files.read_json(REPORTS / "figures.json"),
        folder=REPORTS / "figures",
        vectors=REPORTS / "charts",
        training_warnings=files.read_json(warnings) if warnings.exists() else (),
        attack=Finding.load(REPORTS / "attack"),
        foreign=Finding.load(REPORTS / "foreign"),
        sample=Finding.load(REPORTS / "samples"),
    )
    with files.replace(REPORTS / "report.html") as temporary:
        temporary.write_text(page.page(results, title), encoding="utf-8", newline="\n")
    print(f"open {REPORTS / 'report.html'} in a browser")


if __name__ == "__main__":
    run(main)

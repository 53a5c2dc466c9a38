"""The stock of sentences that reports are built from.

Each normal sentence carries the labels it denies, so that a report can leave out what would contradict it.
"""

_LUNGS = frozenset({"Consolidation", "Edema", "Nodule"})
NORMAL: tuple[tuple[str, frozenset[str]], ...] = (
    ("The lungs are clear.", _LUNGS | {"Effusion", "Pneumothorax"}),
    ("The lungs are well expanded and clear.", _LUNGS | {"Effusion", "Pneumothorax"}),
    ("No focal consolidation.", frozenset({"Consolidation"})),
    ("There is no focal airspace opacity.", _LUNGS),
    (
        "No focal consolidation, pleural effusion or pneumothorax.",
        frozenset({"Consolidation", "Effusion", "Pneumothorax"}),
    ),
    ("No pleural effusion or pneumothorax is seen.", frozenset({"Effusion", "Pneumothorax"})),
    ("There is no pneumothorax.", frozenset({"Pneumothorax"})),
    ("No pneumothorax.", frozenset({"Pneumothorax"})),
    ("No pleural effusion.", frozenset({"Effusion"})),
    ("The costophrenic angles are sharp.", frozenset({"Effusion"})),
    ("No pulmonary edema.", frozenset({"Edema"})),
    ("The pulmonary vasculature is within normal limits.", frozenset({"Edema"})),
    ("The cardiomediastinal silhouette is normal.", frozenset({"Cardiomegaly"})),
    ("Heart size is normal.", frozenset({"Cardiomegaly"})),
    ("The heart is not enlarged.", frozenset({"Cardiomegaly"})),
    ("No suspicious pulmonary nodule.", frozenset({"Nodule"})),
    ("No support lines or devices.", frozenset({"Foreign Object"})),
    ("No radiopaque foreign body.", frozenset({"Foreign Object"})),
    ("The mediastinal contours are unremarkable.", frozenset()),
    ("The osseous structures are intact.", frozenset()),
    ("No acute osseous abnormality.", frozenset()),
    ("Mild degenerative changes of the thoracic spine.", frozenset()),
    ("The trachea is midline.", frozenset()),
    ("The upper abdomen is unremarkable.", frozenset()),
)
NORMAL_IMPRESSIONS = (
    "No acute cardiopulmonary abnormality.",
    "No acute cardiopulmonary process.",
    "Normal chest radiograph.",
    "No evidence of acute cardiopulmonary disease.",
    "No radiographic evidence of acute disease.",
)
REST_IMPRESSIONS: tuple[tuple[str, frozenset[str]], ...] = (
    ("No pneumothorax.", frozenset({"Pneumothorax"})),
    ("No focal consolidation.", frozenset({"Consolidation"})),
    ("No pulmonary edema.", frozenset({"Edema"})),
    ("No pleural effusion.", frozenset({"Effusion"})),
)

# Wordings by label: certain, uncertain. "{side}" is right, left or bilateral, "{place}" a zone.
POSITIVE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Effusion": (
        (
            "There is a {degree} {side} pleural effusion.",
            "{degree} {side} pleural effusion.",
            "A {degree} {side}-sided pleural effusion is present.",
            "{degree} amount of pleural fluid at the {side} {place}.",
            "Opacity of the {side} {place} is consistent with a {degree} pleural effusion.",
        ),
        (
            "Possible {degree} {side} pleural effusion.",
            "Blunting of the {side} {place} may represent a {degree} pleural effusion.",
            "A {degree} {side} pleural effusion cannot be excluded.",
        ),
    ),
    "Pneumothorax": (
        (
            "There is a {degree} {side} pneumothorax.",
            "{degree} {side} {place} pneumothorax.",
            "{degree} {side}-sided pneumothorax with a visible pleural line.",
            "A {side} {place} pneumothorax is present, {degree} in size.",
        ),
        (
            "Possible {degree} {side} {place} pneumothorax.",
            "A {degree} {side} {place} pneumothorax cannot be excluded.",
            "A lucency at the {side} apex may represent a {degree} pneumothorax.",
        ),
    ),
    "Consolidation": (
        (
            "There is a {degree} consolidation in the {side} {place}.",
            "{degree} airspace opacity in the {side} {place}.",
            "{degree} focal opacity in the {side} {place}, consistent with pneumonia.",
            "A {degree} area of consolidation is seen in the {side} {place}.",
            "{degree} {side} {place} airspace disease.",
        ),
        (
            "Possible {degree} consolidation in the {side} {place}.",
            "A {degree} opacity in the {side} {place} may represent pneumonia.",
            "A {degree} {side} {place} consolidation cannot be excluded.",
        ),
    ),
    "Nodule": (
        (
            "There is a {size} cm nodule in the {side} {place}.",
            "A {degree} rounded nodule measuring {size} cm projects over the {side} {place}.",
            "{size} cm nodular opacity in the {side} {place}.",
            "{degree} pulmonary nodule in the {side} {place}.",
        ),
        (
            "A {size} cm opacity in the {side} {place} may represent a nodule.",
            "Possible {degree} nodule in the {side} {place}.",
            "A {degree} {side} {place} nodule cannot be excluded.",
        ),
    ),
    "Cardiomegaly": (
        (
            "There is {degree} cardiomegaly.",
            "The heart is enlarged, {degree} in degree.",
            "{degree} enlargement of the cardiac silhouette.",
            "{degree} cardiomegaly.",
        ),
        (
            "Possible {degree} cardiomegaly.",
            "Prominence of the cardiac silhouette may represent {degree} cardiomegaly.",
            "{degree} cardiac enlargement cannot be excluded.",
        ),
    ),
    "Edema": (
        (
            "There is {degree} {place} pulmonary edema.",
            "{degree} pulmonary edema.",
            "{degree} bilateral {place} interstitial opacities, consistent with edema.",
            "{degree} {place} pulmonary vascular congestion and edema.",
        ),
        (
            "Possible {degree} {place} pulmonary edema.",
            "{degree} {place} interstitial prominence may represent edema.",
            "{degree} pulmonary edema cannot be excluded.",
        ),
    ),
}
# Both sides in one sentence; edema is bilateral in all of its wordings.
BILATERAL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Effusion": (
        (
            "There are {degree} bilateral pleural effusions.",
            "{degree} bilateral pleural effusions.",
            "{degree} pleural effusions are present on both sides.",
        ),
        (
            "Possible {degree} bilateral pleural effusions.",
            "Blunting of both costophrenic angles may represent {degree} pleural effusions.",
        ),
    ),
    "Consolidation": (
        (
            "{degree} bilateral {place} consolidations.",
            "There are {degree} airspace opacities in the {place} of both lungs.",
        ),
        (
            "Possible {degree} bilateral {place} consolidations.",
            "{degree} opacities in the {place} of both lungs may represent pneumonia.",
        ),
    ),
    "Edema": POSITIVE["Edema"],
}
OBJECTS: dict[str, tuple[str, ...]] = {
    "pacemaker": (
        "A {side}-sided pacemaker is in place with its lead over the right ventricle.",
        "{side} {place} pacemaker with a single lead.",
        "Pacemaker generator projects over the {side} {place}.",
    ),
    "central line": (
        "A {side} central venous catheter ends in the {place}.",
        "{side} central line with its tip in the {place}.",
        "A {side} jugular catheter is in place, tip over the {place}.",
    ),
    "endotracheal tube": (
        "An endotracheal tube ends in the {place} above the carina.",
        "Endotracheal tube tip is above the carina.",
        "The patient is intubated, the endotracheal tube lies in the {place}.",
    ),
    "coin": (
        "A round metallic foreign body projects over the {side} {place}.",
        "Coin-shaped radiopaque foreign object overlying the {side} {place}.",
    ),
    "ring": (
        "A ring-shaped metallic foreign object projects over the {side} {place}.",
        "Radiopaque ring overlying the {side} {place}, likely an external foreign object.",
    ),
}


SIDED = {
    "Effusion": ("No {side} pleural effusion.", "The {side} costophrenic angle is sharp."),
    "lung": ("The {side} lung is clear.", "The {side} lung is well aerated."),
}

"""Sentences for zero-shot classification."""

PROMPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Effusion": (
        (
            "There is a pleural effusion.",
            "Pleural effusion is present.",
            "Small pleural effusion.",
            "Moderate to large pleural effusion.",
            "Blunting of the costophrenic angle, consistent with a pleural effusion.",
        ),
        (
            "No pleural effusion.",
            "There is no pleural effusion.",
            "No pleural effusion is seen.",
            "The costophrenic angles are sharp.",
        ),
    ),
    "Pneumothorax": (
        (
            "There is a pneumothorax.",
            "Small apical pneumothorax.",
            "Moderate pneumothorax.",
            "Pneumothorax with a visible pleural line.",
        ),
        (
            "No pneumothorax.",
            "There is no pneumothorax.",
            "No pneumothorax is seen.",
            "The lungs are well expanded.",
        ),
    ),
    "Consolidation": (
        (
            "There is a consolidation.",
            "Focal airspace opacity, consistent with pneumonia.",
            "Moderate area of consolidation.",
            "Focal airspace disease.",
            "A focal opacity may represent pneumonia.",
        ),
        (
            "No focal consolidation.",
            "There is no focal airspace opacity.",
            "No evidence of consolidation.",
            "The lungs are clear.",
        ),
    ),
    "Nodule": (
        (
            "There is a pulmonary nodule.",
            "Rounded nodular opacity.",
            "A 2.0 cm nodule projects over the lung.",
            "Small nodule in the lung.",
        ),
        (
            "No suspicious pulmonary nodule.",
            "No pulmonary nodule.",
            "There is no nodule or mass.",
            "The lungs are clear.",
        ),
    ),
    "Cardiomegaly": (
        (
            "There is cardiomegaly.",
            "The heart is enlarged.",
            "Enlargement of the cardiac silhouette.",
            "Moderate cardiomegaly.",
        ),
        (
            "Heart size is normal.",
            "The heart is not enlarged.",
            "The cardiomediastinal silhouette is normal.",
            "No cardiomegaly.",
        ),
    ),
    "Edema": (
        (
            "There is pulmonary edema.",
            "Moderate pulmonary edema.",
            "Perihilar interstitial opacities, consistent with edema.",
            "Pulmonary vascular congestion and edema.",
        ),
        (
            "No pulmonary edema.",
            "There is no pulmonary edema.",
            "The pulmonary vasculature is within normal limits.",
            "No pulmonary vascular congestion.",
        ),
    ),
    "Foreign Object": (
        (
            "A metallic foreign object projects over the chest.",
            "A pacemaker is in place.",
            "A central venous catheter is in place.",
            "An endotracheal tube is in place.",
            "Radiopaque foreign body.",
        ),
        (
            "No radiopaque foreign body.",
            "No support lines or devices.",
            "There is no foreign object.",
            "No medical devices are present.",
        ),
    ),
}

"""Record classes: what kind of record one key opens. A grant or a revocation names classes, so the list is short and
closed."""

from __future__ import annotations

from typing import Final

AUDIT: Final = "audit"
INDEX: Final = "index"
CLINICAL: Final = "clinical"

_TYPES: Final = {
    "demographics": "Patient Person RelatedPerson",
    "observation": "Observation DiagnosticReport Specimen ImagingStudy Media MolecularSequence BodyStructure",
    "medication": (
        "Medication MedicationAdministration MedicationDispense MedicationKnowledge MedicationRequest "
        "MedicationStatement Immunization ImmunizationEvaluation ImmunizationRecommendation"
    ),
    "document": "DocumentReference DocumentManifest Composition Binary Consent Contract QuestionnaireResponse",
    "financial": (
        "Account ChargeItem Claim ClaimResponse Coverage CoverageEligibilityRequest CoverageEligibilityResponse "
        "EnrollmentRequest EnrollmentResponse ExplanationOfBenefit Invoice PaymentNotice PaymentReconciliation"
    ),
    "administration": (
        "Organization OrganizationAffiliation Practitioner PractitionerRole Location HealthcareService Endpoint "
        "InsurancePlan Device DeviceDefinition DeviceMetric Schedule Slot Appointment AppointmentResponse"
    ),
    "research": "ResearchStudy ResearchSubject ResearchDefinition ResearchElementDefinition",
    AUDIT: "AuditEvent",
}
_CLASS_OF: Final = {name: class_ for class_, names in _TYPES.items() for name in names.split()}

CLASSES: Final = (*_TYPES, CLINICAL, INDEX)
"""All classes, the one that lists a pack's contents last."""


def class_of(resource_type: str) -> str:
    """The class of a FHIR resource type; whatever is not listed elsewhere is clinical."""
    return _CLASS_OF.get(resource_type, CLINICAL)

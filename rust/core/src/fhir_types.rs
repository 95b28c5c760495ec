//! The resource types of FHIR R4 (4.0.1) and, for each, the elements that say which patient it is about.
//! From the Patient compartment definition and the expressions of its search parameters; the element that names the
//! subject comes first, those of people who took part only where the subject may be absent.
//! A Group has no patient: it is about several, and no one of them may decide over it.

/// A place where the patient may stand: member names from the resource down to a Reference.
#[derive(Debug, PartialEq, Eq)]
pub struct Element {
    /// Member names; arrays on the way are walked through.
    pub path: &'static [&'static str],
    /// It names whom the resource is about. Otherwise it names people who took part, and only a reference that is
    /// known to be a Patient's counts.
    pub about: bool,
}

impl Element {
    /// The member of the resource it begins with.
    pub fn name(&self) -> &'static [u8] {
        self.path.first().map_or(&[], |name| name.as_bytes())
    }
}

/// One R4 resource type.
#[derive(Debug, PartialEq, Eq)]
pub struct ResourceType {
    /// As `resourceType` says it.
    pub name: &'static str,
    /// Where its patient may stand, by preference.
    pub elements: &'static [Element],
}

/// Most elements any type has.
pub const MAX_ELEMENTS: usize = 4;

/// The type of this name.
pub fn find(name: &[u8]) -> Option<&'static ResourceType> {
    let place = TYPES.binary_search_by(|candidate| candidate.name.as_bytes().cmp(name)).ok()?;
    TYPES.get(place)
}

const fn about(path: &'static [&'static str]) -> Element {
    Element { path, about: true }
}

const fn party(path: &'static [&'static str]) -> Element {
    Element { path, about: false }
}

const fn of(name: &'static str, elements: &'static [Element]) -> ResourceType {
    ResourceType { name, elements }
}

const NONE: &[Element] = &[];
const PATIENT: &[Element] = &[about(&["patient"])];
const SUBJECT: &[Element] = &[about(&["subject"])];

/// Sorted by name.
pub static TYPES: &[ResourceType] = &[
    of("Account", SUBJECT),
    of("ActivityDefinition", NONE),
    of("AdverseEvent", SUBJECT),
    of("AllergyIntolerance", PATIENT),
    of("Appointment", &[party(&["participant", "actor"])]),
    of("AppointmentResponse", &[party(&["actor"])]),
    of("AuditEvent", &[party(&["entity", "what"]), party(&["agent", "who"])]),
    of("Basic", &[about(&["subject"]), party(&["author"])]),
    of("Binary", &[party(&["securityContext"])]),
    of("BiologicallyDerivedProduct", &[party(&["collection", "source"])]),
    of("BodyStructure", PATIENT),
    of("Bundle", NONE),
    of("CapabilityStatement", NONE),
    of("CarePlan", SUBJECT),
    of("CareTeam", &[about(&["subject"]), party(&["participant", "member"])]),
    of("CatalogEntry", NONE),
    of("ChargeItem", SUBJECT),
    of("ChargeItemDefinition", NONE),
    of("Claim", PATIENT),
    of("ClaimResponse", PATIENT),
    of("ClinicalImpression", SUBJECT),
    of("CodeSystem", NONE),
    of("Communication", &[about(&["subject"]), party(&["sender"]), party(&["recipient"])]),
    of(
        "CommunicationRequest",
        &[about(&["subject"]), party(&["sender"]), party(&["recipient"]), party(&["requester"])],
    ),
    of("CompartmentDefinition", NONE),
    of("Composition", &[about(&["subject"]), party(&["author"]), party(&["attester", "party"])]),
    of("ConceptMap", NONE),
    of("Condition", SUBJECT),
    of("Consent", PATIENT),
    of("Contract", &[party(&["subject"])]),
    of("Coverage", &[about(&["beneficiary"])]),
    of("CoverageEligibilityRequest", PATIENT),
    of("CoverageEligibilityResponse", PATIENT),
    of("DetectedIssue", PATIENT),
    of("Device", PATIENT),
    of("DeviceDefinition", NONE),
    of("DeviceMetric", NONE),
    of("DeviceRequest", SUBJECT),
    of("DeviceUseStatement", SUBJECT),
    of("DiagnosticReport", SUBJECT),
    of("DocumentManifest", &[about(&["subject"]), party(&["author"]), party(&["recipient"])]),
    of("DocumentReference", &[about(&["subject"]), party(&["author"])]),
    of("EffectEvidenceSynthesis", NONE),
    of("Encounter", SUBJECT),
    of("Endpoint", NONE),
    of("EnrollmentRequest", &[about(&["candidate"])]),
    of("EnrollmentResponse", NONE),
    of("EpisodeOfCare", PATIENT),
    of("EventDefinition", NONE),
    of("Evidence", NONE),
    of("EvidenceVariable", NONE),
    of("ExampleScenario", NONE),
    of("ExplanationOfBenefit", PATIENT),
    of("FamilyMemberHistory", PATIENT),
    of("Flag", SUBJECT),
    of("Goal", SUBJECT),
    of("GraphDefinition", NONE),
    of("Group", NONE),
    of("GuidanceResponse", SUBJECT),
    of("HealthcareService", NONE),
    of("ImagingStudy", SUBJECT),
    of("Immunization", PATIENT),
    of("ImmunizationEvaluation", PATIENT),
    of("ImmunizationRecommendation", PATIENT),
    of("ImplementationGuide", NONE),
    of("InsurancePlan", NONE),
    of("Invoice", &[about(&["subject"]), party(&["recipient"])]),
    of("Library", NONE),
    of("Linkage", NONE),
    of("List", &[about(&["subject"]), party(&["source"])]),
    of("Location", NONE),
    of("Measure", NONE),
    of("MeasureReport", SUBJECT),
    of("Media", SUBJECT),
    of("Medication", NONE),
    of("MedicationAdministration", SUBJECT),
    of("MedicationDispense", &[about(&["subject"]), party(&["receiver"])]),
    of("MedicationKnowledge", NONE),
    of("MedicationRequest", SUBJECT),
    of("MedicationStatement", SUBJECT),
    of("MedicinalProduct", NONE),
    of("MedicinalProductAuthorization", NONE),
    of("MedicinalProductContraindication", NONE),
    of("MedicinalProductIndication", NONE),
    of("MedicinalProductIngredient", NONE),
    of("MedicinalProductInteraction", NONE),
    of("MedicinalProductManufactured", NONE),
    of("MedicinalProductPackaged", NONE),
    of("MedicinalProductPharmaceutical", NONE),
    of("MedicinalProductUndesirableEffect", NONE),
    of("MessageDefinition", NONE),
    of("MessageHeader", NONE),
    of("MolecularSequence", PATIENT),
    of("NamingSystem", NONE),
    of("NutritionOrder", PATIENT),
    of("Observation", &[about(&["subject"]), party(&["performer"])]),
    of("ObservationDefinition", NONE),
    of("OperationDefinition", NONE),
    of("OperationOutcome", NONE),
    of("Organization", NONE),
    of("OrganizationAffiliation", NONE),
    of("Parameters", NONE),
    // Its own reference; links to other Patients are not whom it is about.
    of("Patient", NONE),
    of("PaymentNotice", NONE),
    of("PaymentReconciliation", NONE),
    of("Person", &[party(&["link", "target"])]),
    of("PlanDefinition", NONE),
    of("Practitioner", NONE),
    of("PractitionerRole", NONE),
    of("Procedure", SUBJECT),
    of("Provenance", &[party(&["target"])]),
    of("Questionnaire", NONE),
    of("QuestionnaireResponse", &[about(&["subject"]), party(&["source"]), party(&["author"])]),
    of("RelatedPerson", PATIENT),
    of("RequestGroup", SUBJECT),
    of("ResearchDefinition", NONE),
    of("ResearchElementDefinition", NONE),
    of("ResearchStudy", NONE),
    of("ResearchSubject", &[about(&["individual"])]),
    of("RiskAssessment", SUBJECT),
    of("RiskEvidenceSynthesis", NONE),
    of("Schedule", &[party(&["actor"])]),
    of("SearchParameter", NONE),
    of("ServiceRequest", SUBJECT),
    of("Slot", NONE),
    of("Specimen", SUBJECT),
    of("SpecimenDefinition", NONE),
    of("StructureDefinition", NONE),
    of("StructureMap", NONE),
    of("Subscription", NONE),
    of("Substance", NONE),
    of("SubstanceNucleicAcid", NONE),
    of("SubstancePolymer", NONE),
    of("SubstanceProtein", NONE),
    of("SubstanceReferenceInformation", NONE),
    of("SubstanceSourceMaterial", NONE),
    of("SubstanceSpecification", NONE),
    of("SupplyDelivery", PATIENT),
    of("SupplyRequest", &[party(&["deliverTo"])]),
    of("Task", &[about(&["for"])]),
    of("TerminologyCapabilities", NONE),
    of("TestReport", NONE),
    of("TestScript", NONE),
    of("ValueSet", NONE),
    of("VerificationResult", NONE),
    of("VisionPrescription", PATIENT),
];

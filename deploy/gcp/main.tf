# syncagent mirrors a bucket's events into a catalog.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}

# What is mirrored

variable "bucket" {
  type        = string
  description = "The bucket's name."
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", var.bucket))
    error_message = "Give the bucket's name, without gs://."
  }
}

variable "prefix" {
  type        = string
  default     = ""
  description = "Only keys that begin so are read: the dataset's path, such as 'train/'. Empty for all; else the bucket needs uniform access."
}

variable "catalog" {
  type        = string
  default     = "dataloop+https://gate.dataloop.ai"
  description = "The catalog's address, dataloop+https://host."
  validation {
    condition     = can(regex("^dataloop\\+https?://.+", var.catalog))
    error_message = "Write dataloop+https://host."
  }
}

variable "account" {
  type        = string
  description = "PROJECT/NAME of a secret in Secret Manager, a JSON object with username and password of an account of the catalog."
  validation {
    condition     = can(regex("^[^/]+/[^/]+$", var.account))
    error_message = "Write PROJECT/NAME of the secret."
  }
}

variable "dataset" {
  type        = string
  default     = ""
  description = "The id of the one dataset to mirror into. Empty for all that the account sees."
}

# How events come

variable "wiring" {
  type        = string
  default     = "queue"
  description = "How events come to the function: queue or eventarc; see deploy/README.md. With eventarc nothing has to be bound."
  validation {
    condition     = contains(["queue", "eventarc"], var.wiring)
    error_message = "Choose queue or eventarc."
  }
}

variable "concurrency" {
  type        = number
  default     = 5
  description = "Instances that run at once, at most."
  validation {
    condition     = var.concurrency >= 1
    error_message = "One instance at least."
  }
}

# Function

variable "name" {
  type        = string
  default     = "syncagent"
  description = "What the function and all that belongs to it are called. 'syncagent bind DATASET' looks for syncagent-DATASET."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,22}[a-z0-9]$", var.name))
    error_message = "From 6 to 24 small letters, digits and hyphens."
  }
}

variable "project" {
  type        = string
  description = "The project's id."
}

variable "region" {
  type        = string
  description = "The function's region: the bucket's, or one of it."
}

variable "python" {
  type        = string
  default     = "3.13"
  description = "The archive's Python."
  validation {
    condition     = contains(["3.11", "3.12", "3.13"], var.python)
    error_message = "Choose 3.11, 3.12 or 3.13."
  }
}

variable "memory" {
  type        = number
  default     = 512
  description = "Of an instance, in MiB."
  validation {
    condition     = var.memory >= 256
    error_message = "256 at least."
  }
}

variable "log_days" {
  type        = number
  default     = 30
  description = "Days that logs are kept. 30 is the project's own; for another number they go to a log bucket of their own."
  validation {
    condition     = var.log_days >= 1 && var.log_days <= 3650
    error_message = "From 1 to 3650 days."
  }
}

variable "alarm_channel" {
  type        = string
  default     = ""
  description = "Notification channel that alarms go to, projects/PROJECT/notificationChannels/ID. Empty for none."
}

provider "google" {
  project = var.project
  region  = var.region
}

locals {
  by_queue  = var.wiring == "queue"
  directly  = var.wiring == "eventarc"
  told      = var.alarm_channel == "" ? [] : [var.alarm_channel]
  secret    = "gcp-secret://${var.account}"
  own_logs  = var.log_days == 30 ? 0 : 1
  its_logs  = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\""
  storage   = "serviceAccount:${data.google_storage_project_service_account.storage.email_address}"
  pubsub    = "serviceAccount:service-${data.google_project.project.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  readable  = "projects/_/buckets/${var.bucket}/objects/${var.prefix}"
  dead_name = "${var.name}-dead"
}

# -- what is there -------------------------------------------------------------------------------

data "google_project" "project" {
  project_id = var.project
}

data "google_storage_bucket" "bucket" {
  name = var.bucket
}

# Who tells of the bucket's objects: an account of Google's, one a project.
data "google_storage_project_service_account" "storage" {
  project = data.google_storage_bucket.bucket.project_number
}

# -- events --------------------------------------------------------------------------------------

# The bucket has to tell the topic: 'syncagent bind DATASET --to function'.
resource "google_pubsub_topic" "events" {
  count = local.by_queue ? 1 : 0
  name  = var.name
}

resource "google_pubsub_topic_iam_member" "may_fill" {
  count  = local.by_queue ? 1 : 0
  topic  = google_pubsub_topic.events[0].id
  role   = "roles/pubsub.publisher"
  member = local.storage
}

# A subscription of our own and not a trigger's, which would have neither dead letters nor a deadline above ten seconds.
resource "google_pubsub_subscription" "events" {
  count                      = local.by_queue ? 1 : 0
  name                       = var.name
  topic                      = google_pubsub_topic.events[0].id
  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  # It never expires, also when nothing happens for a month.
  expiration_policy {
    ttl = ""
  }

  push_config {
    push_endpoint = google_cloudfunctions2_function.function.service_config[0].uri
    oidc_token {
      service_account_email = google_service_account.caller.email
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # Waits double to ten minutes, so that an outage of 15 hours stays below.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters[0].id
    max_delivery_attempts = 100
  }

  depends_on = [google_cloud_run_service_iam_member.may_call, google_pubsub_topic_iam_member.may_bury]
}

# What failed a hundred times waits here for a week: 'syncagent handle' tries it again.
resource "google_pubsub_topic" "dead_letters" {
  count = local.by_queue ? 1 : 0
  name  = local.dead_name
}

# Without a subscription, what is published to a topic is gone.
resource "google_pubsub_subscription" "dead_letters" {
  count                      = local.by_queue ? 1 : 0
  name                       = local.dead_name
  topic                      = google_pubsub_topic.dead_letters[0].id
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic_iam_member" "may_bury" {
  count  = local.by_queue ? 1 : 0
  topic  = google_pubsub_topic.dead_letters[0].id
  role   = "roles/pubsub.publisher"
  member = local.pubsub
}

# Pub/Sub takes what it buries out of the subscription.
resource "google_pubsub_subscription_iam_member" "may_take" {
  count        = local.by_queue ? 1 : 0
  subscription = google_pubsub_subscription.events[0].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub
}

# Without a queue, Eventarc tries for a day, and then drops the event. A trigger takes one type.
resource "google_eventarc_trigger" "trigger" {
  for_each        = toset(local.directly ? ["finalized", "deleted", "archived", "metadataUpdated"] : [])
  name            = "${var.name}-${lower(each.key)}"
  location        = lower(data.google_storage_bucket.bucket.location)
  service_account = google_service_account.caller.email

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.storage.object.v1.${each.key}"
  }

  matching_criteria {
    attribute = "bucket"
    value     = var.bucket
  }

  destination {
    cloud_run_service {
      service = google_cloudfunctions2_function.function.name
      region  = var.region
    }
  }

  depends_on = [
    google_cloud_run_service_iam_member.may_call,
    google_project_iam_member.may_receive,
    google_project_iam_member.may_tell,
  ]
}

resource "google_project_iam_member" "may_receive" {
  count   = local.directly ? 1 : 0
  project = var.project
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.caller.member
}

# Eventarc makes a topic for each trigger, whose names nobody knows before.
resource "google_project_iam_member" "may_tell" {
  count   = local.directly ? 1 : 0
  project = var.project
  role    = "roles/pubsub.publisher"
  member  = local.storage
}

# -- who may do what -----------------------------------------------------------------------------

resource "google_service_account" "function" {
  account_id   = var.name
  display_name = "Mirrors a bucket's events into a catalog"
}

resource "google_service_account" "caller" {
  account_id   = "${var.name}-call"
  display_name = "Brings ${var.name} its events"
}

resource "google_service_account" "builder" {
  account_id   = "${var.name}-make"
  display_name = "Builds ${var.name}"
}

# To list, too: without, a key that is gone is answered by 'access denied'.
resource "google_storage_bucket_iam_member" "may_read" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.function.member

  dynamic "condition" {
    for_each = var.prefix == "" ? [] : [local.readable]
    content {
      title      = "below the prefix"
      expression = "resource.type == \"storage.googleapis.com/Bucket\" || resource.name.startsWith(\"${condition.value}\")"
    }
  }
}

resource "google_secret_manager_secret_iam_member" "may_know" {
  project   = split("/", var.account)[0]
  secret_id = split("/", var.account)[1]
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function.member
}

resource "google_cloud_run_service_iam_member" "may_call" {
  location = var.region
  service  = google_cloudfunctions2_function.function.name
  role     = "roles/run.invoker"
  member   = google_service_account.caller.member
}

# https://cloud.google.com/functions/docs/securing/build-custom-sa. The project's own account has them no more in new projects.
resource "google_project_iam_member" "may_build" {
  for_each = toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])
  project  = var.project
  role     = each.key
  member   = google_service_account.builder.member
}

# -- the function --------------------------------------------------------------------------------

resource "google_storage_bucket" "archives" {
  name                        = "${var.project}-${var.name}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true
}

resource "google_storage_bucket_object" "archive" {
  bucket = google_storage_bucket.archives.name
  # Another archive has another name, or Google would not notice.
  name   = "${filemd5("${path.module}/syncagent-gcp.zip")}.zip"
  source = "${path.module}/syncagent-gcp.zip"
}

resource "google_cloudfunctions2_function" "function" {
  name        = var.name
  location    = var.region
  description = "Mirrors a bucket's events into a catalog"

  build_config {
    runtime         = "python${replace(var.python, ".", "")}"
    entry_point     = local.by_queue ? "push" : "on_event"
    service_account = google_service_account.builder.id
    environment_variables = {
      # The archive brings its packages; the build asks no index for any.
      GOOGLE_VENDOR_PIP_DEPENDENCIES = "wheels"
    }
    source {
      storage_source {
        bucket = google_storage_bucket.archives.name
        object = google_storage_bucket_object.archive.name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.function.email
    available_cpu                    = "1"
    available_memory                 = "${var.memory}Mi"
    timeout_seconds                  = 120
    max_instance_count               = var.concurrency
    max_instance_request_concurrency = 8
    # Pub/Sub and Eventarc of this project are inside.
    ingress_settings = "ALLOW_INTERNAL_ONLY"
    environment_variables = merge(
      {
        SYNCAGENT_CATALOG = var.catalog
        DTLPY_USERNAME    = "${local.secret}#username"
        DTLPY_PASSWORD    = "${local.secret}#password"
      },
      var.dataset == "" ? {} : { DATASET_ID = var.dataset },
    )
  }

  depends_on = [google_project_iam_member.may_build]
}

# -- logs and alarms -----------------------------------------------------------------------------

resource "google_logging_project_bucket_config" "logs" {
  count          = local.own_logs
  project        = var.project
  location       = var.region
  bucket_id      = var.name
  retention_days = var.log_days
}

resource "google_logging_project_sink" "logs" {
  count       = local.own_logs
  name        = var.name
  destination = "logging.googleapis.com/${google_logging_project_bucket_config.logs[0].id}"
  filter      = local.its_logs
}

# Else the project's own log bucket would keep them as well.
resource "google_logging_project_exclusion" "logs" {
  count  = local.own_logs
  name   = var.name
  filter = local.its_logs
}

resource "google_monitoring_alert_policy" "late" {
  count                 = local.by_queue ? 1 : 0
  display_name          = "${var.name}: late"
  combiner              = "OR"
  notification_channels = local.told

  conditions {
    display_name = "The oldest event has waited for a quarter of an hour."
    condition_threshold {
      filter          = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${var.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 900
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "errors" {
  display_name          = "${var.name}: errors"
  combiner              = "OR"
  notification_channels = local.told

  conditions {
    display_name = "The function failed in each of three periods of five minutes."
    condition_threshold {
      filter          = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\" AND metric.labels.response_code_class!=\"2xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "900s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "dead" {
  count                 = local.by_queue ? 1 : 0
  display_name          = "${var.name}: dead letters"
  combiner              = "OR"
  notification_channels = local.told

  conditions {
    display_name = "Events were given up."
    condition_threshold {
      filter          = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${local.dead_name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
}

output "function" {
  description = "For 'syncagent bind DATASET --to function --function'"
  value       = google_cloudfunctions2_function.function.service_config[0].uri
}

output "dead_letters" {
  description = "What was given up"
  value       = local.by_queue ? "pubsub://${var.project}/${local.dead_name}" : ""
}
